"""What an agent read, as protobuf."""

from dataclasses import replace

from zeta.telemetry.v1.telemetry_service_pb2 import ClockReason, GpuUse, ReplicaReport

from telemetry_svc import wire as service
from telemetry_svc.agent import wire
from telemetry_svc.agent.board import Gpu, Instance, Profile, Reason
from tests.unit.telemetry_svc.agent.test_gpu import WHOLE

PROFILE = Profile(**dict.fromkeys(Profile.__slots__, 0.5))
FULL = replace(
    WHOLE,
    errors=replace(WHOLE.errors, last_xid=79),
    instances=(Instance(uuid="MIG-0", instance_id=1, profile=PROFILE),),
    profile=PROFILE,
)


def test_every_field_of_the_message_is_written() -> None:
    """A board that knows everything fills the whole message, and telemetry takes it."""
    written = wire.gpu_use(FULL)

    empty = {f.name for f in GpuUse.DESCRIPTOR.fields} - {f.name for f, _ in written.ListFields()}
    # Zero is how proto3 writes the first board; a board that is not cut says so.
    assert empty == {"index"}
    assert written.HasField("mig_enabled")
    assert written.sm_clock_hz == 1.98e9
    assert written.throttled
    assert written.clock_reasons == [ClockReason.CLOCK_REASON_SW_POWER_CAP]
    assert written.processes[1].pid == 8
    assert written.instances[0].profile.tensor_active_ratio == 0.5
    service.check(ReplicaReport(replica="m-0", seq=1, gpus=[written]))


def test_what_is_not_known_stays_empty() -> None:
    """A board that gives nothing has no figure, not even zero."""
    written = wire.gpu_use(Gpu(uuid="GPU-1", name="", index=1))

    assert [field.name for field, _ in written.ListFields()] == ["uuid", "index"]


def test_every_reason_has_its_number() -> None:
    """The names here and on the wire are the same."""
    names = {name.removeprefix("CLOCK_REASON_") for name in ClockReason.keys()}  # noqa: SIM118

    assert names - {"UNSPECIFIED"} == {reason.name for reason in Reason}

// Asks one question many times, balancing over replicas by gRPC's own weighted round robin:
//   node balance.mjs HOST:PORT,HOST:PORT PROMPT ROUNDS
// Prints one JSON object per round of 20 answers: {"by_replica", "report"}, the report being
// the last one that came behind a call.
import { fileURLToPath } from "node:url";
import { credentials, loadPackageDefinition } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const options = {
  includeDirs: [fileURLToPath(new URL("../../../protos", import.meta.url))],
  keepCase: true,
};
const models = loadSync("zeta/inference/v1/inference_service.proto", options);
const orca = loadSync("zeta/orca/service/v3/orca.proto", options);
const { InferenceService } = loadPackageDefinition(models).zeta.inference.v1;
const { responseDeserialize } = orca["xds.service.orca.v3.OpenRcaService"].StreamCoreMetrics;

const [targets, prompt, rounds] = process.argv.slice(2);
const policy = { weighted_round_robin: { blackoutPeriod: "0s", weightUpdatePeriod: "0.1s" } };
const client = new InferenceService(`ipv4:${targets}`, credentials.createInsecure(), {
  "grpc.service_config": JSON.stringify({ loadBalancingConfig: [policy] }),
});

const ask = () =>
  new Promise((resolve, reject) => {
    const call = client.Generate(
      { prompt, sampling: { temperature: 0 }, max_tokens: 4 },
      { deadline: Date.now() + 30_000 },
    );
    let replica;
    call.on("data", ({ started }) => {
      replica = started?.replica ?? replica;
    });
    call.on("error", reject);
    call.on("status", ({ metadata }) => {
      const [report] = metadata.get("endpoint-load-metrics-bin");
      resolve({ replica, report: report && responseDeserialize(report) });
    });
  });

for (let round = 0; round < Number(rounds); round += 1) {
  const by_replica = {};
  let last;
  for (let i = 0; i < 20; i += 1) {
    last = await ask();
    by_replica[last.replica] = (by_replica[last.replica] ?? 0) + 1;
  }
  console.log(JSON.stringify({ by_replica, report: last.report }));
}
client.close();

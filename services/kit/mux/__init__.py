"""Many calls of `Generate` on one stream (`zeta.inference.v1.CallService`): both of its ends."""

// Streams one answer, knowing nothing of Zeta but its .proto files:
//   node client.mjs HOST:PORT PROMPT
// Prints one JSON object: {"text","model","decision_id","deltas","reason"}.
import { fileURLToPath } from "node:url";
import { credentials, loadPackageDefinition } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const protos = fileURLToPath(new URL("../../../protos", import.meta.url));
const definition = loadSync("zeta/inference/v1/inference_service.proto", {
  includeDirs: [protos],
  keepCase: true,
  enums: String,
  longs: Number,
  defaults: true,
  oneofs: true,
});
const { InferenceService } = loadPackageDefinition(definition).zeta.inference.v1;

const [target, prompt] = process.argv.slice(2);
const client = new InferenceService(target, credentials.createInsecure());
const call = client.Generate(
  {
    messages: { messages: [{ role: "ROLE_USER", content: prompt }] },
    sampling: { temperature: 0 },
    max_tokens: 32,
  },
  { deadline: Date.now() + 30_000 },
);

const answer = { text: "", deltas: 0 };
call.on("data", (response) => {
  switch (response.event) {
    case "started":
      answer.model = response.started.model;
      answer.decision_id = response.started.decision_id;
      break;
    case "delta":
      answer.text += response.delta.text;
      answer.deltas += 1;
      break;
    case "finished":
      answer.reason = response.finished.reason;
      break;
  }
});
call.on("error", (error) => {
  console.error(`${error.code} ${error.details}`);
  process.exitCode = 1;
});
call.on("end", () => console.log(JSON.stringify(answer)));
call.on("status", () => client.close());

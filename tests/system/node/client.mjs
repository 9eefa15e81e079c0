// Streams one answer, knowing nothing of Zeta but its .proto files:
//   node client.mjs HOST:PORT PROMPT [MODEL]
// Where the connection breaks, it goes on with the answer behind the last delta that came.
// Prints one JSON object: {"text","model","decision_id","deltas","reason","resumed"}; says on
// stderr when the answer has begun.
import { fileURLToPath } from "node:url";
import { credentials, loadPackageDefinition, status } from "@grpc/grpc-js";
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

const [target, prompt, model] = process.argv.slice(2);
const client = new InferenceService(target, credentials.createInsecure());
const deadline = Date.now() + 30_000;
const answer = { text: "", deltas: 0, resumed: 0 };
// What gRPC itself says of a connection that broke; Zeta's own errors come with details.
const broke = ({ code, metadata }) =>
  [status.UNAVAILABLE, status.CANCELLED, status.INTERNAL].includes(code) &&
  metadata.get("grpc-status-details-bin").length === 0;

function stream(request) {
  const call = client.Generate(request, { deadline });
  call.on("data", (response) => {
    switch (response.event) {
      case "started":
        answer.model = response.started.model;
        answer.decision_id = response.started.decision_id;
        break;
      case "delta":
        if (answer.deltas === 0) console.error("begun");
        answer.text += response.delta.text;
        answer.deltas = response.delta.seq;
        break;
      case "finished":
        answer.reason = response.finished.reason;
        break;
    }
  });
  call.on("error", (error) => {
    if (answer.decision_id && !answer.reason && broke(error) && answer.resumed < 10) {
      answer.resumed += 1;
      const resume = { decision_id: answer.decision_id, after_seq: answer.deltas };
      setTimeout(() => stream({ resume }), 100 * Math.random() * 2 ** answer.resumed);
    } else {
      console.error(`${error.code} ${error.details}`);
      process.exitCode = 1;
      client.close();
    }
  });
  call.on("end", () => {
    if (!answer.reason) return;
    console.log(JSON.stringify(answer));
    client.close();
  });
}

stream({
  model,
  messages: { messages: [{ role: "ROLE_USER", content: prompt }] },
  sampling: { temperature: 0 },
  max_tokens: 32,
});

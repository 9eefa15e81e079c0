// Streams one answer from a replica, with a ticket from the router, and reports how it ended:
//   node direct.mjs HOST:PORT PROMPT
// Prints one JSON object: {"address","text","replica","same_decision","counted"}.
import { fileURLToPath } from "node:url";
import { Metadata, credentials, loadPackageDefinition } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const protos = fileURLToPath(new URL("../../../protos", import.meta.url));
const definition = loadSync("zeta/router/v1/router_service.proto", {
  includeDirs: [protos],
  keepCase: true,
  longs: Number,
});
const { zeta } = loadPackageDefinition(definition);

const [target, prompt] = process.argv.slice(2);
const router = new zeta.router.v1.RouterService(target, credentials.createInsecure());
const unary = (method, request) =>
  new Promise((resolve, reject) => {
    router[method](request, (error, response) => (error ? reject(error) : resolve(response)));
  });

const asked = {
  messages: { messages: [{ role: "ROLE_USER", content: prompt }] },
  sampling: { temperature: 0 },
  max_tokens: 32,
};
const { ticket, decision } = await unary("Route", { generate: asked, ticket: true });
const replica = new zeta.inference.v1.InferenceService(ticket.address, credentials.createInsecure());
const metadata = new Metadata();
metadata.set("zeta-ticket", ticket.token.toString());

const answer = { address: ticket.address, text: "" };
for await (const { started, delta, finished } of replica.Generate(asked, metadata)) {
  if (started) {
    answer.replica = started.replica;
    answer.same_decision = started.decision_id === decision.id;
  }
  if (delta) answer.text += delta.text;
  if (finished) {
    const report = await unary("ReportOutcome", { token: ticket.token, finished });
    answer.counted = report.counted;
  }
}
console.log(JSON.stringify(answer));
replica.close();
router.close();

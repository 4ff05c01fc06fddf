// Claude Code, to which the server was added. It has no account here, so no model calls a tool;
// the messages do with which Anthropic's Agent SDK controls it.
import { setTimeout } from "node:timers/promises";
import { converse, drive } from "./drive.mjs";

const LINES = ["--input-format", "stream-json", "--output-format", "stream-json", "--verbose"];

await drive(async () => {
  const { ask, close } = converse("claude", ["-p", ...LINES]);
  const control = async (request) => {
    const message = (id) => ({ type: "control_request", request_id: id, request });
    return (await ask(message)).response;
  };
  const status = async () => {
    const { response } = await control({ subtype: "mcp_status" });
    return response.mcpServers.find(({ name }) => name === "proxmox");
  };
  let server;
  while ((server = await status()).status === "pending") await setTimeout(100);
  if (server.status !== "connected") throw new Error(JSON.stringify(server));
  return {
    tools: server.tools.map(({ name }) => name),
    call: async (name, given) => {
      const tool = `mcp__proxmox__${name}`;
      const result = await control({ subtype: "mcp_call", tool, arguments: given });
      return { text: result.error ?? result.response.content, error: "error" in result };
    },
    close,
  };
});

// The TypeScript SDK of the second protocol era: @modelcontextprotocol/client.
import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { answer, drive } from "./drive.mjs";

await drive(async (command, args) => {
  const options = { versionNegotiation: { mode: "auto" } }; // by itself it speaks as the first era
  const client = new Client({ name: "test", version: "1" }, options);
  await client.connect(new StdioClientTransport({ command, args }));
  return {
    tools: (await client.listTools()).tools.map((tool) => tool.name),
    call: async (name, given) => answer(await client.callTool({ name, arguments: given })),
    close: () => client.close(),
  };
});

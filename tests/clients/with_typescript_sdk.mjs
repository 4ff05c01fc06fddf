// The TypeScript SDK of the first protocol era: @modelcontextprotocol/sdk.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { answer, drive } from "./drive.mjs";

await drive(async (command, args) => {
  const client = new Client({ name: "test", version: "1" });
  await client.connect(new StdioClientTransport({ command, args }));
  return {
    tools: (await client.listTools()).tools.map((tool) => tool.name),
    call: async (name, given) => answer(await client.callTool({ name, arguments: given })),
    close: () => client.close(),
  };
});

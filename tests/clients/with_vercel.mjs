// Vercel's AI SDK: the tools that @ai-sdk/mcp makes of a server's.
import { createMCPClient } from "@ai-sdk/mcp";
import { Experimental_StdioMCPTransport as Transport } from "@ai-sdk/mcp/mcp-stdio";
import { answer, drive } from "./drive.mjs";

await drive(async (command, args) => {
  const transport = new Transport({ command, args });
  // With discovery, it gives a server one second to start, and then fails.
  const client = await createMCPClient({ transport, protocolVersionDiscovery: false });
  const tools = await client.tools();
  const options = { toolCallId: "1", messages: [] };
  return {
    tools: Object.keys(tools),
    call: async (name, given) => answer(await tools[name].execute(given, options)),
    close: () => client.close(),
  };
});

// LangChain: @langchain/mcp-adapters, whose tools answer with the message that the model reads.
import { MultiServerMCPClient } from "@langchain/mcp-adapters";
import { drive } from "./drive.mjs";

await drive(async (command, args) => {
  const client = new MultiServerMCPClient({ mcpServers: { proxmox: { command, args } } });
  const tools = new Map((await client.getTools()).map((tool) => [tool.name, tool]));
  return {
    tools: [...tools.keys()],
    call: async (name, given) => {
      if (!tools.has(name)) return { text: "not sent: no such tool", error: true };
      const message = { type: "tool_call", id: "1", name, args: given };
      const { content, status } = await tools.get(name).invoke(message);
      return { text: content, error: status === "error" };
    },
    close: () => client.close(),
  };
});

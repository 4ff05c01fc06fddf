// Codex, to which the server was added. It has no account here, so no model calls a tool; the
// messages do with which an editor controls it.
import { answer, converse, drive } from "./drive.mjs";

await drive(async () => {
  const { ask, close } = converse("codex", ["app-server"]);
  const request = async (method, params) => {
    const { result, error } = await ask((id) => ({ id, method, params }));
    if (error) throw new Error(error.message);
    return result;
  };
  await request("initialize", { clientInfo: { name: "test", version: "1" } });
  const { thread } = await request("thread/start", {});
  const server = { threadId: thread.id, server: "proxmox" };
  const { data } = await request("mcpServerStatus/list", { threadId: thread.id });
  return {
    tools: Object.keys(data.find(({ name }) => name === "proxmox").tools),
    call: async (tool, given) =>
      answer(await request("mcpServer/tool/call", { ...server, tool, arguments: given })),
    close,
  };
});

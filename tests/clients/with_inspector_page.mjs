// The page of the MCP Inspector in Chromium, used as a person does.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import { drive } from "./drive.mjs";

const OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
OPTIONS.push("--disable-background-networking", "--disable-component-update", "--disable-sync");

const { CHROMIUM, PATH } = process.env;
const paths = CHROMIUM ? [CHROMIUM] : PATH.split(delimiter).map((each) => join(each, "chromium"));
const executablePath = paths.find(existsSync);
if (!executablePath) {
  console.error("Chromium is missing: install it, or set CHROMIUM to its path");
  process.exit(1);
}

// Start the Inspector, which wants a port that is free; return its page's address with the token.
async function start(command, args) {
  const listener = createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address();
  listener.close();
  const ports = { CLIENT_PORT: port, MCP_SANDBOX_PORT: 0, MCP_APP_ORIGIN_PORT: 0 };
  const options = { MCP_AUTO_OPEN_ENABLED: "false", MCP_INSPECTOR_SECRET_STORE: "memory" };
  const env = { ...process.env, ...ports, ...options };
  const stdio = ["ignore", "pipe", "inherit"];
  const inspector = spawn("mcp-inspector", ["--web", command, ...args], { env, stdio });
  process.on("exit", () => inspector.kill());
  for await (const line of createInterface({ input: inspector.stdout })) {
    const [address] = line.match(/http\S+TOKEN=\S+/) ?? [];
    if (address) return { address, inspector };
  }
  throw new Error("the Inspector did not start");
}

// Fill in the form; return whether it can be run and will send just these arguments.
async function fill(page, given) {
  for (const [name, value] of Object.entries(given)) {
    const field = page.getByRole("textbox", { name, exact: true });
    if (value === null || !(await field.isVisible())) return false;
    await field.fill(`${value}`);
    if ((await field.inputValue()) !== `${value}`) return false;
  }
  return page.getByRole("button", { name: "Execute Tool" }).isEnabled();
}

await drive(async (command, args) => {
  const { address, inspector } = await start(command, args);
  const browser = await chromium.launch({ executablePath, args: OPTIONS });
  const page = await browser.newPage();
  await page.goto(address, { waitUntil: "domcontentloaded" });
  await page.getByRole("switch", { name: /^Connect or disconnect/ }).check({ force: true });
  await page.getByRole("radiogroup").getByText("Tools", { exact: true }).click();
  await page.getByRole("heading", { name: /^Tools \([1-9]/ }).waitFor();
  const tools = page.getByRole("main").getByRole("button", { name: /_/ });
  const names = (await tools.allInnerTexts()).map((text) => text.match(/\w+_\w+/)[0]);
  const choose = (name) => page.getByRole("button", { name }).click();
  return {
    tools: names,
    call: async (name, given) => {
      const cannot = { text: "not sent: the form cannot express it", error: true };
      if (!names.includes(name)) return cannot;
      await choose(names[0]); // another tool, because a form keeps its last values
      await choose(name);
      if (!(await fill(page, given))) return cannot;
      await page.getByRole("button", { name: "Execute Tool" }).click();
      const close = page.getByRole("button", { name: "Close results" });
      await close.waitFor();
      const shown = page.getByRole("main").locator("pre, [role=alert]").first();
      const result = { text: await shown.innerText() };
      result.error = (await shown.getAttribute("role")) === "alert";
      await close.click();
      return result;
    },
    close: async () => {
      await browser.close();
      inspector.kill();
    },
  };
});

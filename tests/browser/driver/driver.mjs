// Chromium with GraphiQL in it, driven over stdin and stdout by `chromium.py`: one command per
// line, as JSON, answered in turn; what happens to a page in between is told as an event.

import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const FLAGS = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  // No name means anything: what is not on this machine can't be reached.
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];

const tell = (line) => process.stdout.write(JSON.stringify(line) + "\n");

class Reader {
  constructor(name) {
    this.name = name;
  }

  tell(event, facts) {
    tell({ page: this.name, event, ...facts });
  }

  // A profile is a folder: what a browser remembers.
  async open({ executable, profile, url }) {
    this.context = await chromium.launchPersistentContext(profile, {
      executablePath: executable,
      args: FLAGS,
      chromiumSandbox: false,
      viewport: { width: 1400, height: 900 },
    });
    this.page = this.context.pages()[0];
    this.page.on("request", (request) => this.tell("request", { url: request.url() }));
    this.page.on("websocket", (socket) => this.tell("request", { url: socket.url() }));
    this.page.on("pageerror", (error) => this.tell("problem", { text: String(error) }));
    this.page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) {
        this.tell("problem", { text: message.text() });
      }
    });
    await this.page.exposeFunction("tellShown", (text) => this.tell("shown", { text }));
    await this.load(() => this.page.goto(url));
  }

  async reload() {
    await this.load(() => this.page.reload());
  }

  // Waits until GraphiQL can be used: it is there, and knows the schema.
  async load(go) {
    const introspected = this.page.waitForResponse(
      (response) => response.request().postData()?.includes("IntrospectionQuery") ?? false,
    );
    await go();
    await introspected;
    await this.page.locator(".graphiql-spinner").first().waitFor({ state: "detached" });
    await this.page.evaluate(() => {
      const answer = document.querySelector(".result-window .CodeMirror").CodeMirror;
      answer.on("change", () => window.tellShown(answer.getValue()));
    });
  }

  async run({ operation }) {
    await this.page.getByRole("button", { name: /^Execute query/ }).click();
    await this.page.getByRole("menuitem", { name: operation, exact: true }).click();
  }

  async click({ button }) {
    await this.page.getByRole("button", { name: button, exact: true }).click();
  }

  async focus({ editor }) {
    await this.page.evaluate(
      (selector) => document.querySelector(selector).CodeMirror.focus(),
      editor,
    );
  }

  async link({ text }) {
    await this.page.getByRole("link", { name: text, exact: true }).first().click();
  }

  async press({ keys }) {
    for (const key of keys) await this.page.keyboard.press(key);
  }

  async write({ editor, text }) {
    await this.page.evaluate(
      ([selector, value]) => document.querySelector(selector).CodeMirror.setValue(value),
      [editor, text],
    );
  }

  async read({ editor }) {
    return this.page.evaluate(
      (selector) => document.querySelector(selector).CodeMirror.getValue(),
      editor,
    );
  }

  // Waits until an element is there to be seen.
  async see({ selector }) {
    await this.page.locator(selector).first().waitFor();
  }

  // Puts a script into the page, as an attacker would, and tells whether it ran.
  async inject() {
    return this.page.evaluate(() => {
      const script = document.createElement("script");
      script.textContent = "window.injected = true;";
      document.body.append(script);
      return window.injected === true;
    });
  }

  async stored() {
    return this.page.evaluate(() => ({ ...localStorage }));
  }

  async picture({ path }) {
    await this.page.screenshot({ path });
  }

  async close() {
    await this.context.close();
  }
}

const readers = new Map();
for await (const line of createInterface({ input: process.stdin })) {
  const { page, does, ...facts } = JSON.parse(line);
  if (!readers.has(page)) readers.set(page, new Reader(page));
  try {
    tell({ page, answer: (await readers.get(page)[does](facts)) ?? null });
  } catch (error) {
    tell({ page, refused: String(error) });
  }
}
process.exit(0);

// Pages that follow replies as a real frontend does, driven over stdin and stdout by
// `browsers.py`: one command or event per line, as JSON. Each page has a connection of its own.

import { createInterface } from "node:readline";
import { createClient as createSseClient } from "graphql-sse";
import { createClient as createWsClient } from "graphql-ws";
import WebSocket from "ws";

const RETRY_MS = 100;

class Page {
  // What it has of the reply: kept as a frontend keeps it, and counted as JavaScript counts.
  content = "";

  constructor(name) {
    this.name = name;
  }

  tell(event, facts = {}) {
    process.stdout.write(JSON.stringify({ page: this.name, event, ...facts }) + "\n");
  }

  // Connects to the first of the URLs, and where `retries` allows to the next ones in turn.
  open({ transport, urls, key, retries = 0 }) {
    let attempt = 0;
    const url = () => urls[attempt++ % urls.length];
    const common = {
      retryAttempts: retries,
      // What a frontend has by now is what it asks to go on after.
      retryWait: async () => {
        this.variables.offset = this.content.length;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      },
    };
    if (transport === "sse") {
      this.client = createSseClient({
        ...common,
        url: () => url().replace("ws:", "http:"),
        retry: common.retryWait,
        headers: { "X-Session-ID": key },
      });
      this.cut = () => this.client.dispose();
      return;
    }
    this.client = createWsClient({
      ...common,
      url,
      webSocketImpl: WebSocket,
      connectionParams: { sessionId: key },
      lazy: false,
      onNonLazyError: () => {},
      shouldRetry: () => true,
      on: {
        connected: (socket) => {
          this.cut = () => socket.terminate(); // no farewell: as a network does it
          this.tell("connected", { url: socket.url });
        },
        closed: ({ code, reason }) => this.tell("closed", { code, reason }),
      },
    });
  }

  // `dropAt`: how long the content gets before the connection breaks.
  subscribe({ query, variables, dropAt = Infinity }) {
    this.variables = { ...variables, offset: this.content.length };
    this.dropAt = dropAt;
    this.isDropped = false;
    const unless = (f) => (value) => this.isDropped || f(value);
    const sink = {
      next: unless((result) => this.take(result)),
      error: unless((error) => this.tell("error", shown(error))),
      complete: unless(() => this.tell("complete")),
    };
    this.client.subscribe({ query, variables: this.variables }, sink);
  }

  take({ data, errors }) {
    if (errors) {
      this.tell("error", { errors });
      return;
    }
    const [event] = Object.values(data);
    switch (event.__typename) {
      case "ReplyStarted":
        return this.tell("started", event);
      case "ReplySearched":
        return this.tell("searched", event);
      case "ReplyDelta":
        if (event.offset !== this.content.length) {
          this.tell("gap", { offset: event.offset, length: this.content.length });
        }
        this.content += event.text;
        this.tell("delta", { text: event.text, length: this.content.length });
        if (this.content.length >= this.dropAt) {
          this.drop();
        }
        return;
      case "ReplyEnded":
        return this.tell("ended", { ...event, content: this.content });
      default:
        return this.tell("rejected", event);
    }
  }

  drop() {
    this.isDropped = true;
    this.cut();
    this.tell("dropped", { content: this.content, length: this.content.length });
  }

  async close() {
    this.isDropped = true;
    await this.client.dispose();
  }
}

function shown(error) {
  if (Array.isArray(error)) {
    return { errors: error };
  }
  // A CloseEvent, a NetworkError with a response, or any other Error.
  return { code: error.code, status: error.response?.status, message: String(error.message ?? error) };
}

const pages = new Map();
for await (const line of createInterface({ input: process.stdin })) {
  const { page: name, does, ...facts } = JSON.parse(line);
  if (!pages.has(name)) {
    pages.set(name, new Page(name));
  }
  pages.get(name)[does](facts);
}
process.exit(0);

// A browser with one page, whose code is `parley.mjs` of the documentation: cookies, storage
// and sockets are what Node lacks of a browser. Prints what the page saw, as JSON.

import { WebSocket } from "ws";

const ORIGIN = process.env.BETTER_AUTH_URL;
const SEND = `mutation ($input: SendMessageInput!) {
  sendMessage(input: $input) { ... on SendMessageSuccess { session { id } reply { id } } }
}`;
const VIEWER = "{ viewer { id name isAnonymous } }";
const SESSIONS = "{ sessions { edges { node { id } } } }";
const REPLY = `subscription ($id: ID!) {
  reply(messageId: $id) { __typename ... on ReplyRejected { error { message } } }
}`;

const cookies = new Map();
let tokensAsked = 0;
const plainFetch = globalThis.fetch;
globalThis.fetch = async (url, options = {}) => {
  tokensAsked += Number(String(url).endsWith("/token"));
  const headers = new Headers(options.headers);
  headers.set("Origin", ORIGIN);
  if (options.credentials === "include") {
    headers.set("Cookie", [...cookies].map((cookie) => cookie.join("=")).join("; "));
  }
  const answer = await plainFetch(url, { ...options, headers });
  for (const cookie of answer.headers.getSetCookie()) {
    const [name, value] = cookie.split(";")[0].split(/=(.*)/);
    cookies.set(name, value);
  }
  return answer;
};
globalThis.localStorage = {};
globalThis.WebSocket = WebSocket;

const page = await import("./parley.mjs");

async function told(client, query, variables) {
  const events = [];
  for await (const event of client.iterate({ query, variables })) {
    events.push(event);
  }
  return events;
}

const visit = await page.ask(SEND, { input: { content: "Who am I?" } });
const visitor = await page.ask(VIEWER);

await fetch(`${ORIGIN}/api/auth/sign-up/email`, {
  method: "POST",
  credentials: "include",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({
    name: "Page",
    email: `page-${crypto.randomUUID()}@example.com`,
    password: crypto.randomUUID(),
  }),
});
await page.claimVisit();

const overHttp = await page.ask(VIEWER);
// The client closes a socket on which nothing is left to do.
const closed = new Promise((resolve) => page.socket.on("closed", resolve));
const [overSocket] = await told(page.socket, VIEWER);
await closed;
const askedBefore = tokensAsked;
const [afterReconnecting] = await told(page.socket, VIEWER);

console.log(
  JSON.stringify({
    visit,
    visitor,
    overHttp,
    overSocket,
    afterReconnecting,
    tokensAskedToReconnect: tokensAsked - askedBefore,
    overEventStream: await told(page.eventStream, REPLY, {
      id: visit.data.sendMessage.reply.id,
    }),
    sessions: await page.ask(SESSIONS),
    keyLeft: localStorage.parleyKey ?? null,
  }),
);
process.exit(0);

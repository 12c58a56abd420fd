// Runs the audits of graphql-http against a server, and writes what came of each as JSON:
//
//   node run.mjs http://127.0.0.1:8000/graphql
//   [{"id": "22EB", "name": "SHOULD accept …", "status": "ok"}, …]
//
// What is not ok has a reason too.

import { auditServer } from "graphql-http";

const results = await auditServer({ url: process.argv[2] });
console.log(JSON.stringify(results.map(({ response, ...result }) => result)));

// What a bundler does to a module that uses Relay: node compile.mjs SOURCE TARGET

import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { transformSync } from "@babel/core";
import relay from "babel-plugin-relay";

const [source, target] = process.argv.slice(2);
const options = { filename: resolve(source), plugins: [relay], configFile: false };
const { code } = transformSync(readFileSync(source, "utf8"), options);
// Node finds no file without its extension.
writeFileSync(target, code.replace(/(__generated__\/\w+\.graphql)(?=")/g, "$1.js"));

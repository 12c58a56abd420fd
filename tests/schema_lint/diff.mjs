// What changed in the schema since the last release: `diff.mjs OLD NEW CHANGELOG`.
// Fails for what breaks clients, unless the changelog says so under Unreleased. A field that the
// last release had deprecated may go.

import { readFile } from "node:fs/promises";
import { CriticalityLevel, DiffRule, diff } from "@graphql-inspector/core";
import { buildSchema } from "graphql";

const [before, after, changelog] = await Promise.all(
  process.argv.slice(2, 5).map((path) => readFile(path, "utf8")),
);
const changes = await diff(buildSchema(before), buildSchema(after), [
  DiffRule.suppressRemovalOfDeprecatedField,
]);
for (const { criticality, message } of changes) {
  console.log(`${criticality.level.padEnd(12)} ${message}`);
}

const unreleased = changelog.split(/^## /m).find((part) => part.startsWith("[Unreleased]")) ?? "";
const isNamed = /^### Breaking$/m.test(unreleased);
if (changes.some(({ criticality }) => criticality.level === CriticalityLevel.Breaking)) {
  if (isNamed) {
    console.log("These break clients, as CHANGELOG.md says.");
  } else {
    console.log('These break clients: say so and why in CHANGELOG.md, under "### Breaking".');
    process.exitCode = 1;
  }
}

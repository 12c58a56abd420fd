// What graphql-eslint asks of the schema (PARLEY_SCHEMA), and every exception with its reason.

import plugin from "@graphql-eslint/eslint-plugin";

// Only what is an entity can be asked for again by an id. These can't:
const NO_ENTITIES = {
  suffixes: [
    "Success", // what a mutation did
    "Connection", // a page of a list
    "Edge", // a place in a list; its cursor names it
  ],
  types: [
    "PageInfo",
    // Snapshots inside a message, which has an id.
    "Citation",
    "ReplyError",
    // What happens to a reply. Nothing of it is kept but the reply.
    "ReplyStarted",
    "ReplySearched",
    "ReplyDelta",
    "ReplyEnded",
    "ReplyRejected",
    // Failures that a client can act on. They happen, and are gone.
    "NotFound",
    "InvalidInput",
    "IdConflict",
    "ReplyInProgress",
    "QuotaExceeded",
  ],
};

// No field leads to it: it is what `extensions.code` of a top-level error can be, which clients
// want to generate types from.
const UNREACHABLE = ["ErrorCode"];

export default [
  {
    files: ["**/*.graphql"],
    languageOptions: {
      parser: plugin.parser,
      parserOptions: { graphQLConfig: { schema: process.env.PARLEY_SCHEMA } },
    },
    plugins: {
      "@graphql-eslint": {
        ...plugin,
        rules: {
          ...plugin.rules,
          "no-unreachable-types": allowing(plugin.rules["no-unreachable-types"], UNREACHABLE),
        },
      },
    },
    rules: {
      ...plugin.configs["flat/schema-recommended"].rules,
      ...plugin.configs["flat/schema-relay"].rules,
      // Everything is described, not only types and root fields.
      "@graphql-eslint/require-description": [
        "error",
        {
          types: true,
          rootField: true,
          DirectiveDefinition: true,
          EnumValueDefinition: true,
          FieldDefinition: true,
          InputValueDefinition: true,
        },
      ],
      "@graphql-eslint/strict-id-in-types": ["error", { exceptions: NO_ENTITIES }],
      "@graphql-eslint/relay-edge-types": [
        "error",
        {
          withEdgeSuffix: true,
          shouldImplementNode: true,
          // A message's citations and searches are few, and read as a whole.
          listTypeCanWrapOnlyEdgeType: false,
        },
      ],
    },
  },
];

// The rule has no exceptions of its own.
function allowing(rule, names) {
  const create = (context) =>
    rule.create(
      Object.create(context, {
        report: {
          value: (found) => {
            if (!names.includes(found.node.value)) context.report(found);
          },
        },
      }),
    );
  return { ...rule, create };
}

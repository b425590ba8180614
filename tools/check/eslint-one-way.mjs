// The one way in which data flows: stacks → components → (the generated SDK) → provider → agent. Nothing imports
// upwards, and components do not import the provider. A room is a folder at the top of the repository; within the
// provider, its folders are rooms as well.
import path from "node:path";

const repository = path.resolve(import.meta.dirname, "../..");

/** The room a file belongs to: a top-level folder, or a folder of the provider, named `provider/<folder>`. */
function roomOf(file) {
  const [first, second, ...rest] = path.relative(repository, file).split(path.sep);
  return first === "provider" && rest.length > 0 ? `provider/${second}` : first;
}

const belowProvider = ["protocol", "schema", "resources", "backends", "local", "system"].map(
  (name) => `provider/${name}`,
);

/** Which rooms a room may import; a room that is not listed may import all. */
export const mayImport = {
  stacks: ["stacks", "components"],
  components: ["components", "sdk", "shared"],
  sdk: ["sdk"],
  provider: ["provider", "shared", ...belowProvider],
  // Pulumi's protocol knows no resource.
  "provider/protocol": ["provider/protocol", "provider/schema", "provider/backends", "shared"],
  "provider/schema": ["provider/schema", "provider/protocol", "provider/backends", "shared"],
  // Resources reach this machine through the interfaces of the backends only.
  "provider/resources": [
    "provider/resources",
    "provider/protocol",
    "provider/schema",
    "provider/backends",
    "shared",
    "hosts",
  ],
  "provider/backends": ["provider/backends", "shared", "hosts"],
  "provider/local": ["provider/local", "provider/backends", "provider/system", "shared", "hosts"],
  "provider/system": ["provider/system", "provider/backends", "shared"],
  "command-plugin": [
    "command-plugin",
    "provider/protocol",
    "provider/schema",
    "provider/backends",
    "provider/system",
    "shared",
  ],
  cli: ["cli", "command-plugin", "components", "provider", ...belowProvider, "shared", "hosts"],
  shared: ["shared"],
};

/** The ESLint rule. */
export const oneWay = {
  create(context) {
    const room = roomOf(context.filename);
    const allowed = mayImport[room];
    const check = (node) => {
      const target = node.source?.value;
      if (!allowed || typeof target !== "string" || !target.startsWith(".")) return;
      const found = roomOf(path.resolve(path.dirname(context.filename), target));
      if (!allowed.includes(found)) {
        context.report({ node, message: `${room} imports ${found}: it may import ${allowed.join(", ")} only.` });
      }
    };
    return {
      ImportDeclaration: check,
      ImportExpression: check,
      ExportNamedDeclaration: check,
      ExportAllDeclaration: check,
    };
  },
};

// The one way in which data flows: stacks → components → (the generated SDK) → provider → agent. Nothing imports
// upwards, and components do not reach into the provider.
import path from "node:path";

const repository = path.dirname(import.meta.dirname);

/** The room a file belongs to; what lies outside of all rooms belongs to none. */
function roomOf(file) {
  const [first, second] = path.relative(repository, file).split(path.sep);
  if (first !== "components") return first;
  if (["provider", "cli", "sdk", "shared"].includes(second)) return second;
  return "components";
}

/** Which rooms a room may import; a room that is not listed may import all. */
export const mayImport = {
  stacks: ["stacks", "components", "sdk", "shared"],
  components: ["components", "sdk", "shared"],
  provider: ["provider", "hosts", "shared"],
  cli: ["cli", "components", "provider", "hosts", "shared"],
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

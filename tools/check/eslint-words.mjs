// Words that this project once used in a sense of its own, and the field's word for each. They are refused in names
// that this code declares: functions, classes, types, variables, parameters, properties. Names of others (imported, or
// quoted because a protocol has them) are not ours to choose.

/**
 * A word in its forms, and what to say instead. `leaves` is also the plural of leaf, and `left` a side and what
 * remains.
 * @type {{ forms: string[], instead: string }[]}
 */
export const words = [
  { forms: ["bring", "brings", "bringing", "brought"], instead: "converge, start or add" },
  { forms: ["demand", "demands", "demanded", "demanding"], instead: "require" },
  { forms: ["leave", "leaves", "leaving"], instead: "keep, skip, stop or remove" },
  { forms: ["tell", "tells", "telling", "told", "teller"], instead: "report, describe or distinguish" },
  { forms: ["wish", "wishes", "wished", "wishing"], instead: "desired" },
  { forms: ["judge", "judges", "judged", "judging", "judgement", "judgment"], instead: "check, evaluate or verdict" },
  { forms: ["trouble", "troubles", "troubled", "troubling"], instead: "problem" },
];

const insteadOf = new Map(words.flatMap(({ forms, instead }) => forms.map((form) => [form, instead])));

/** The words of a name, in lower case: `urlTrouble`, `URLTrouble` and `URL_TROUBLE` have the same two. */
export function wordsOf(name) {
  return (name.match(/[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+/g) ?? []).map((word) => word.toLowerCase());
}

/** The names that a pattern declares: `{ a, b: [c], ...d } = {}` declares a, c and d. */
function declaredBy(pattern) {
  switch (pattern?.type) {
    case "Identifier":
      return [pattern];
    case "ObjectPattern":
      return pattern.properties.flatMap((property) =>
        // `{ tell }` has the name that the object's owner has chosen; `{ ask: tell }` chooses one.
        property.type === "RestElement" ? declaredBy(property) : property.shorthand ? [] : declaredBy(property.value),
      );
    case "ArrayPattern":
      return pattern.elements.flatMap(declaredBy);
    case "AssignmentPattern":
      return declaredBy(pattern.left);
    case "RestElement":
      return declaredBy(pattern.argument);
    case "TSParameterProperty":
      return declaredBy(pattern.parameter);
    default:
      return [];
  }
}

/** The ESLint rule. */
export const plainWords = {
  create(context) {
    const check = (node) => {
      if (node?.type !== "Identifier" && node?.type !== "PrivateIdentifier") return;
      for (const word of wordsOf(node.name)) {
        const instead = insteadOf.get(word);
        if (instead) {
          context.report({ node, message: `"${node.name}" contains "${word}". Use a word such as ${instead}.` });
        }
      }
    };
    const checkPatterns = (patterns) => patterns.flatMap(declaredBy).forEach(check);
    const checkFunction = (node) => {
      check(node.id);
      checkPatterns(node.params);
    };
    const checkNamed = (node) => check(node.id);
    // `["tell"]: …` and `"tell": …` are names of others; `[tell]: …` uses a name that is declared elsewhere.
    const checkMember = (node) => {
      if (!node.computed) check(node.key);
    };
    return {
      FunctionDeclaration: checkFunction,
      FunctionExpression: checkFunction,
      ArrowFunctionExpression: checkFunction,
      TSDeclareFunction: checkFunction,
      TSFunctionType: (node) => checkPatterns(node.params),
      TSMethodSignature: (node) => {
        checkMember(node);
        checkPatterns(node.params);
      },
      ClassDeclaration: checkNamed,
      ClassExpression: checkNamed,
      TSInterfaceDeclaration: checkNamed,
      TSTypeAliasDeclaration: checkNamed,
      TSTypeParameter: (node) => check(node.name),
      VariableDeclarator: (node) => checkPatterns([node.id]),
      CatchClause: (node) => checkPatterns([node.param]),
      MethodDefinition: checkMember,
      PropertyDefinition: checkMember,
      TSAbstractMethodDefinition: checkMember,
      TSAbstractPropertyDefinition: checkMember,
      TSPropertySignature: checkMember,
      "ObjectExpression > Property": (node) => {
        // `{ tell }` is reported where `tell` is declared.
        if (!node.shorthand) checkMember(node);
      },
    };
  },
};

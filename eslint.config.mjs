// Style is prettier's; here are mistakes, and the one way in which data flows:
// stacks → components → provider (through the generated SDK) → agent. Nothing imports upwards.
import tseslint from "typescript-eslint";

/** Forbids imports whose path matches, with the reason as the message. */
function boundary(...patterns) {
  return {
    "no-restricted-imports": ["error", { patterns: patterns.map(([regex, message]) => ({ regex, message })) }],
  };
}

const folder = (name) => `(^|/)${name}(/|$)`;
const noStacks = [folder("stacks"), "Nothing imports upwards: stacks import components."];
const noTests = [folder("test"), "What is shipped does not import tests."];

export default tseslint.config(
  {
    ignores: ["build/", "dist/", "**/node_modules/", "hosts/api/gen/", "components/sdk/"],
  },
  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: {
      parserOptions: { projectService: { allowDefaultProject: ["*.ts"] }, tsconfigRootDir: import.meta.dirname },
    },
    rules: {
      eqeqeq: ["error", "always", { null: "ignore" }],
      "no-restricted-syntax": [
        "error",
        { selector: "TSEnumDeclaration", message: "Use a union of string literals: it is what the schema has." },
      ],
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      "@typescript-eslint/no-floating-promises": "error",
      "@typescript-eslint/consistent-type-imports": "off",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true, allowBoolean: true }],
      // An async method without await is how an interface of promises is implemented.
      "@typescript-eslint/require-await": "off",
    },
  },
  {
    files: ["**/*.mjs"],
    extends: [tseslint.configs.recommended],
    rules: { eqeqeq: ["error", "always", { null: "ignore" }] },
  },
  {
    files: ["components/**/*.ts"],
    ignores: ["components/provider/**", "components/cli/**"],
    rules: boundary(
      [folder("provider"), "Components share the generated SDK with the provider, never its internals."],
      noStacks,
      noTests,
    ),
  },
  {
    files: ["components/provider/**/*.ts"],
    rules: boundary(
      [`${folder("components")}`, "The provider imports nothing above itself."],
      [
        "^(\\.\\./)+(index|host|group|image|registry|internal|cli)(/|\\.js$)",
        "The provider does not import components.",
      ],
      noStacks,
      noTests,
    ),
  },
  {
    files: ["components/cli/**/*.ts"],
    rules: boundary(noStacks, noTests),
  },
  {
    files: ["stacks/**/*.ts"],
    rules: boundary([folder("provider"), "Stacks use components, not the provider."], noTests),
  },
  {
    // Tests look into answers of programs, whose types nobody declares.
    files: ["**/*.test.ts", "test/**/*.ts"],
    rules: {
      "@typescript-eslint/no-unsafe-assignment": "off",
      "@typescript-eslint/no-unsafe-member-access": "off",
      "@typescript-eslint/no-unsafe-argument": "off",
      "@typescript-eslint/no-unsafe-call": "off",
      "@typescript-eslint/no-unsafe-return": "off",
      "@typescript-eslint/unbound-method": "off",
      "@typescript-eslint/no-base-to-string": "off",
    },
  },
);

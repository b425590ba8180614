// Style is prettier's; here are mistakes, and the one way in which data flows:
// stacks → components → provider (through the generated SDK) → agent. Nothing imports upwards.
import tseslint from "typescript-eslint";
import { oneWay } from "./tools/check/eslint-one-way.mjs";
import { plainWords } from "./tools/check/eslint-words.mjs";

/** Tests, and what only tests use. */
const tests = [
  "**/*.test.ts",
  "**/testing.ts",
  "{cli,command-plugin,components/*,provider}/**/testing/**/*.ts",
  "test/**/*.ts",
];

export default tseslint.config(
  {
    ignores: ["build/", "dist/", "**/node_modules/", "hosts/api/gen/", "sdk/", "templates/"],
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
      "@typescript-eslint/no-floating-promises": [
        "error",
        {
          // They return their argument, which may be a promise, and collect what is wrong with it.
          allowForKnownSafeCalls: [{ from: "file", path: "components/internal/arguments.ts", name: ["field"] }],
        },
      ],
      "@typescript-eslint/consistent-type-imports": "off",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true, allowBoolean: true }],
      // Bags of properties have values of unknown types; the schema has checked them.
      "@typescript-eslint/no-base-to-string": "off",
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
    files: ["{cli,command-plugin,components,provider,sdk,shared,stacks}/**/*.ts"],
    // Tests may look at their subject from both sides.
    ignores: tests,
    plugins: { palisade: { rules: { "one-way": oneWay } } },
    rules: { "palisade/one-way": "error" },
  },
  {
    files: ["**/*.{ts,mjs}"],
    plugins: { words: { rules: { plain: plainWords } } },
    rules: { "words/plain": "error" },
  },
  {
    // Tests look into answers of programs, whose types nobody declares.
    files: tests,
    rules: {
      "@typescript-eslint/no-unsafe-assignment": "off",
      "@typescript-eslint/no-unsafe-member-access": "off",
      "@typescript-eslint/no-unsafe-argument": "off",
      "@typescript-eslint/no-unsafe-call": "off",
      "@typescript-eslint/no-unsafe-return": "off",
      "@typescript-eslint/unbound-method": "off",
    },
  },
);

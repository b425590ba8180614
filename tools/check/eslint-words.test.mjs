import { RuleTester } from "eslint";
import tseslint from "typescript-eslint";
import { describe, expect, it } from "vitest";
import { plainWords, words, wordsOf } from "./eslint-words.mjs";

RuleTester.describe = describe;
RuleTester.it = it;

const refused = (code, ...names) => ({
  code,
  errors: names.map((name) => ({ message: new RegExp(`^"${name}" contains "[a-z]+"\\. Use a word such as `) })),
});

new RuleTester({ languageOptions: { parser: tseslint.parser } }).run("plain-words", plainWords, {
  valid: [
    "function converge(desired: string) { return desired; }",
    // Parts of other words.
    "const wishbone = 1; const intelligence = storyteller; class Demander {}",
    "const left = 1; const leaf = 2;",
    // Names of others.
    'import { tell } from "somewhere"; tell();',
    'export { tell } from "somewhere";',
    'const answer = { "tell": 1, ["judge"]: 2 };',
    'interface Answer { "tell": string }',
    "const { tell } = somebody; const { wish: desired } = somebody;",
    "const x = { [tell]: 1 }; somebody.tell(); somebody.wish = 1;",
    // Texts and comments are not names.
    "/* we tell */ const text = 'demand';",
  ],
  invalid: [
    refused("function bring() {}", "bring"),
    refused("function f(wishes: string[], { a: [tell] = [] }, ...troubles) {}", "wishes", "tell", "troubles"),
    refused("const urlTrouble = 1", "urlTrouble"),
    refused("const URL_TROUBLE = 1", "URL_TROUBLE"),
    refused("const { a: judge, ...demands } = x, [leave] = y", "judge", "demands", "leave"),
    refused("const f = (told) => told", "told"),
    refused("try {} catch (trouble) {}", "trouble"),
    refused(
      "class Judge { #wish = 1; tells() {} constructor(private leaves: number) {} }",
      "Judge",
      "#?wish",
      "tells",
      "leaves",
    ),
    refused("abstract class A { abstract brought: number; abstract tell(): void }", "brought", "tell"),
    refused(
      "interface Demand<Wish> { told: string; judge(trouble: string): void }",
      "Demand",
      "Wish",
      "told",
      "judge",
      "trouble",
    ),
    refused("type Troubles = { wish: (tell: string) => void }", "Troubles", "wish", "tell"),
    refused("const x = { tell: 1, judge() {} }", "tell", "judge"),
    refused("declare function bring(wish: string): void", "bring", "wish"),
  ],
});

describe("words", () => {
  it("finds the words of a name in every spelling", () => {
    expect(wordsOf("urlTrouble")).toEqual(["url", "trouble"]);
    expect(wordsOf("URLTrouble2")).toEqual(["url", "trouble", "2"]);
    expect(wordsOf("URL_TROUBLE")).toEqual(["url", "trouble"]);
    expect(wordsOf("_x")).toEqual(["x"]);
  });

  it("are each replaced by others", () => {
    const forms = words.flatMap((word) => word.forms);
    expect(new Set(forms).size).toBe(forms.length);
    for (const { instead } of words) expect(wordsOf(instead).filter((word) => forms.includes(word))).toEqual([]);
  });
});

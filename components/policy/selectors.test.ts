import { expect, it } from "vitest";
import type { LabelSelector } from "./arguments.js";
import { selects } from "./selectors.js";

const labels = { app: "web", tier: "" };
const requirement = (
  key: string,
  operator: "In" | "NotIn" | "Exists" | "DoesNotExist",
  values?: string[],
): LabelSelector => ({
  matchExpressions: [{ key, operator, ...(values && { values }) }],
});

// https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
it.each<[string, LabelSelector, boolean]>([
  ["an empty one", {}, true],
  ["a label", { matchLabels: { app: "web" } }, true],
  ["an empty value", { matchLabels: { tier: "" } }, true],
  ["another value", { matchLabels: { app: "db" } }, false],
  ["one of two labels", { matchLabels: { app: "web", zone: "a" } }, false],
  ["a name of Object's own", { matchLabels: { constructor: "" } }, false],
  ["In", requirement("app", "In", ["db", "web"]), true],
  ["In, absent", requirement("zone", "In", ["a"]), false],
  ["NotIn", requirement("app", "NotIn", ["web"]), false],
  ["NotIn, absent", requirement("zone", "NotIn", ["a"]), true],
  ["Exists", requirement("tier", "Exists"), true],
  ["Exists, absent", requirement("zone", "Exists"), false],
  ["DoesNotExist", requirement("tier", "DoesNotExist"), false],
  ["DoesNotExist, absent", requirement("zone", "DoesNotExist"), true],
  [
    "a label and a requirement that fails",
    { matchLabels: { app: "web" }, ...requirement("app", "NotIn", ["web"]) },
    false,
  ],
])("%s", (_name, selector, selected) => {
  expect(selects(selector, labels)).toBe(selected);
});

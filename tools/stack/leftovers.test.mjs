// What is owned and how it is removed: provider/local/reap.test.ts.
import { expect, it } from "vitest";
import { knownIds } from "./leftovers.mjs";

it.each([
  ["no state", "", []],
  ["an empty stack", '{"version":3,"deployment":{"manifest":{}}}', []],
  ["resources, of which components have no id", '{"deployment":{"resources":[{"id":"vm-1"},{"urn":"x"}]}}', ["vm-1"]],
])("the known ids of %s", (_name, text, ids) => expect([...knownIds(text)]).toEqual(ids));

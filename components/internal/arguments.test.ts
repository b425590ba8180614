import { inspect } from "node:util";
import * as pulumi from "@pulumi/pulumi";
import { describe, expect, it } from "vitest";
import { ArgumentCheck, ArgumentError, known, rules, whenKnown } from "./arguments.js";
import { valueOf } from "./testing/recorder.js";

/** An output that fails does so in each of its promises; all but the awaited one are of no interest here. */
function failing<T>(input: unknown): pulumi.Output<T> {
  const output = input as pulumi.Output<T> & Record<"isKnown" | "isSecret" | "allResources", unknown>;
  for (const part of [output.isKnown, output.isSecret, (output as unknown as { promise(): unknown }).promise()]) {
    if (part instanceof Promise) part.catch(() => undefined);
  }
  return output;
}

describe("ArgumentCheck", () => {
  it("checks an output when it becomes known", async () => {
    const input = pulumi.output(new Promise<number>((resolve) => setTimeout(() => resolve(99), 10)));
    const checked = new ArgumentCheck("late").field("cpus", input, rules.integer(1, 64));
    await expect(valueOf(failing<number>(checked))).rejects.toThrow(
      "late: an argument is not valid\n  cpus = 99: must",
    );
  });

  it.each<[string, unknown, string]>([
    ["a text", "word:latest", "image: must"],
    ["a text that the reason quotes", "word:latest", 'image: must not be "[secret]"'],
    ["a number", 4711, "image: must"],
    ["a short text", "ab", "image: must not be [secret]"],
  ])("quotes nothing of a secret that becomes known later: %s", async (_name, value, shown) => {
    const rule = (given: unknown) =>
      shown.includes("not be") ? `must not be ${JSON.stringify(given)}` : "must be something else";
    const input = pulumi.secret(new Promise<unknown>((resolve) => setTimeout(() => resolve(value), 10)));
    const refused = valueOf(failing<unknown>(new ArgumentCheck("late").field("image", input, rule)));
    await expect(refused).rejects.toThrow(shown);
    await expect(refused).rejects.not.toThrow(String(value));
  });

  it("quotes nothing of what lies beside a secret in one value", async () => {
    const check = (set: { name: string; token: string }): never => {
      const refused = new ArgumentCheck("late");
      refused.add("token", set.token, `${set.token} is wrong`);
      refused.refuse();
      throw new Error("not refused");
    };
    const late = failing<unknown>(whenKnown({ name: pulumi.output("x"), token: pulumi.secret("canary-token") }, check));
    await expect(valueOf(late)).rejects.toThrow("token: [secret] is wrong");
  });

  it("passes a right value on, and secrets as secrets", async () => {
    const checked = new ArgumentCheck("late").field("word", pulumi.secret("x"), rules.text) as pulumi.Output<string>;
    expect(await valueOf(checked)).toBe("x");
    expect(await (checked as unknown as { isSecret: Promise<boolean> }).isSecret).toBe(true);
  });

  it("throws an error that Pulumi shows without a stack trace", () => {
    const check = new ArgumentCheck("Thing");
    check.add("a", 1, "wrong");
    try {
      check.refuse();
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(ArgumentError);
      expect(pulumi.RunError.isInstance(error)).toBe(true);
      expect((error as ArgumentError).problems).toEqual([{ path: "a", value: "1", reason: "wrong" }]);
    }
  });

  it("is inspected in no time, whatever Pulumi hangs on the error", () => {
    const error = Object.assign(new ArgumentError("Thing", []), { promise: new Promise(() => undefined) });
    expect(inspect(error)).toBe(error.message);
  });

  it("does not call a name of Object's own an argument", () => {
    const check = new ArgumentCheck("Thing");
    check.keys("", { constructor: 1 }, ["a"], {});
    expect(() => check.refuse()).toThrow("constructor: no such argument; there are a");
  });
});

it("knows plain values only", () => {
  expect(known(1)).toBe(1);
  expect(known(pulumi.output(1))).toBeUndefined();
  expect(known(Promise.resolve(1))).toBeUndefined();
  expect(known(undefined)).toBeUndefined();
});

import { inspect } from "node:util";
import * as pulumi from "@pulumi/pulumi";
import { describe, expect, it } from "vitest";
import { ArgumentCheck, ArgumentError, known, rules } from "./arguments.js";
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

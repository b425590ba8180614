/** One run of Copa: https://project-copacetic.github.io/copacetic/website/ */
import { readFile } from "node:fs/promises";
import * as v from "valibot";
import { decode, object } from "../../../shared/decode.js";
import { CommandError, run } from "../../system/command.js";
import { digestPattern } from "../registry/digest.js";
import type { ToolAccess } from "./tool-access.js";

export interface CopaRequest {
  /** server/repository@digest */
  reference: string;
  /** Of the patched image, in the same repository. */
  tag: string;
  /** Trivy's report. */
  report: string;
  /** Gets Copa's OpenVEX document. */
  vexFile: string;
  logFile: string;
  /** Unix socket of BuildKit. */
  socket: string;
  access: ToolAccess;
  /** Milliseconds. */
  limit: number;
}

/** A patch that is refused; the message says what can be done about it. */
export class PatchRefusedError extends Error {
  override readonly name = "PatchRefusedError";
}

/**
 * Patches an image and pushes it.
 *
 * @returns the digest of what Copa says it pushed.
 * @throws PatchRefusedError when the image's package sources lack a version that the database requires. A package that
 * cannot be updated is never skipped silently.
 */
export async function runCopa(
  request: CopaRequest,
  onLine: (line: string) => void,
  signal: AbortSignal,
): Promise<string> {
  const { reference, tag, report, vexFile, logFile, socket, access, limit } = request;
  const lines: string[] = [];
  try {
    await run(
      "copa",
      [
        ...["patch", "--addr", `unix://${socket}`, "--image", reference, "--report", report, "--tag", tag, "--push"],
        ...["--timeout", `${Math.max(1, Math.floor(limit / 1000))}s`, "--format", "openvex", "--output", vexFile],
      ],
      {
        environment: access.environment,
        logFile,
        signal,
        diesWithUs: true,
        onLine: (line) => {
          lines.push(line);
          onLine(line);
        },
      },
    );
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    throw refusal(lines) ?? error;
  }
  return pushedDigest(await readFile(vexFile, "utf8"));
}

/** The reason in Copa's output why it cannot patch; undefined for errors of another kind. */
export function refusal(lines: string[]): PatchRefusedError | undefined {
  const text = lines.join("\n");
  const low = new Set(
    [...text.matchAll(/package (\S+) version (\S+) lower than required (\S+)/g)].map(
      ([, name, has, required]) => `${name} ${has}, lower than required ${required}`,
    ),
  );
  if (low.size > 0) {
    return new PatchRefusedError(
      `digest: the newest versions in the image's own package sources do not fix what the database knows: ${[...low].join("; ")}; ` +
        "nothing was pushed; try again when the mirror has them",
    );
  }
  if (/Held packages were changed/.test(text)) {
    return new PatchRefusedError(
      "digest: packages that are to be updated are held in the image (apt-mark hold), so they stay vulnerable; nothing was pushed; " +
        "build the image without the hold",
    );
  }
  if (/apt-get -s upgrade.*did not complete successfully/s.test(text)) {
    return new PatchRefusedError(
      "digest: the image's own package sources have nothing newer, lower than required by what the database knows; nothing was pushed; " +
        "does the image name the suite's security sources, and is the mirror up to date?",
    );
  }
  const unreachable = /(?:W|E): (Failed to fetch .*)/.exec(text)?.[1];
  if (unreachable !== undefined) {
    return new PatchRefusedError(
      `digest: the image's own package sources cannot be read: ${unreachable}; nothing was pushed`,
    );
  }
  return undefined;
}

const vexSchema = object({
  statements: v.nullish(
    v.array(object({ products: v.nullish(v.array(object({ "@id": v.nullish(v.string(), "") })), []) })),
    [],
  ),
});

/** The digest that Copa's OpenVEX document names. */
export function pushedDigest(vex: string): string {
  const { statements } = decode(vexSchema, vex, "copa's OpenVEX document");
  const digest = statements[0]?.products[0]?.["@id"].split("@").at(-1);
  if (digest === undefined || !digestPattern.test(digest)) throw new Error("copa told no digest of what it pushed");
  return digest;
}

// Reads a stack's outputs as JSON from standard input, asks the address, prints the result. The argument goes before
// the commands that it names.
import { readFileSync } from "node:fs";
import { setTimeout as wait } from "node:timers/promises";
import { pathToFileURL } from "node:url";

/** How long a group that is said to be ready may take to answer from here, milliseconds. */
const patience = 20_000;

/** Repeats the request until an answer comes or the time is over; then the last error is thrown. */
export async function ask(url, limit = patience, pause = 500) {
  const deadline = Date.now() + limit;
  for (;;) {
    const started = Date.now();
    try {
      const response = await fetch(url, { signal: AbortSignal.timeout(5_000), redirect: "manual" });
      const body = await response.arrayBuffer();
      if (response.status < 500) {
        return { status: response.status, bytes: body.byteLength, milliseconds: Date.now() - started };
      }
      throw new Error(`HTTP ${response.status}`);
    } catch (error) {
      if (Date.now() + pause > deadline) {
        throw new Error(`${url} does not answer: ${error.cause?.message ?? error.message}`, { cause: error });
      }
    }
    await wait(pause);
  }
}

/** The result of patching, as lines of label and text. */
export function vulnerabilityLines({ fixableBefore, fixableAfter }, vex) {
  const counted = [["vulnerabilities", `${fixableBefore} fixable → ${fixableAfter}`]];
  return vex === undefined ? counted : [...counted, ["OpenVEX", vex]];
}

/** The integrity facts, as lines of label and text. */
export function integrityLines(facts) {
  return [
    ["Secure Boot", facts.secureBoot ? "on" : "OFF"],
    ["lockdown", facts.lockdown],
    ["root", facts.verityMount],
    ["root hash", facts.rootHash],
    ["its signature", facts.rootHashSignatureVerified ? "verified by the kernel" : "NOT VERIFIED"],
    ["IPE policy", `${facts.ipePolicy || "NONE"}, ${facts.ipeEnforcing ? "enforcing" : "audit"}`],
    ["SELinux", facts.selinux],
    ["mode", facts.mode || "NOT NAMED"],
    ["kernel", facts.kernelVersion],
  ];
}

function print(lines) {
  for (const [label, text] of lines) console.log(`  ${label.padEnd(15)} ${text}`);
}

async function main(prefix) {
  const outputs = JSON.parse(readFileSync(0, "utf8"));
  if (typeof outputs.url !== "string") {
    throw new Error("the stack has no output url; look at: tools/stack/stack.sh stack output");
  }
  const answer = await ask(outputs.url);
  console.log("\nServing");
  print([
    ["address", outputs.url],
    ["answer", `HTTP ${answer.status}, ${answer.bytes} bytes, ${answer.milliseconds} ms`],
    ["group", `${outputs.group}, ${outputs.groupState}`],
    ["host", `${outputs.hostId} (${outputs.accelerator}), booted in ${outputs.bootSeconds ?? "?"} s`],
    ["image", outputs.hostImage],
  ]);
  if (outputs.vulnerabilities) {
    console.log("\nImage");
    print(vulnerabilityLines(outputs.vulnerabilities, outputs.vex));
  }
  if (outputs.integrity) {
    console.log("\nIntegrity, as the host's kernel reports it");
    print(integrityLines(outputs.integrity));
  }
  console.log("\nNext");
  for (const [command, purpose] of [
    [`curl ${outputs.url}`, "ask it yourself"],
    [`${prefix}tools/stack/stack.sh preview --diff`, "what the next make up would change"],
    [`${prefix}tools/stack/stack.sh stack output`, "everything the stack says"],
    [`${prefix}bin/palisade status`, "hosts, integrity and groups, as the hosts report them now"],
    [`${prefix}bin/palisade logs ${outputs.group}`, "what the group's containers print"],
    [`${prefix}bin/palisade console --follow`, "the host's console"],
    [`${prefix}make up`, "again: nothing changes"],
    [`${prefix}make down`, "removes what was made; keys stay"],
  ]) {
    console.log(`  ${command}\n      ${purpose}`);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  main(process.argv[2] ?? "").catch((error) => {
    console.error(`palisade: ${error.message}`);
    process.exitCode = 1;
  });
}

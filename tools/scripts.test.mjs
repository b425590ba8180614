// The shell scripts of tools/, each in a copy of the folder so that nothing of this clone is touched.
import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

/** With the script that builds pinned Go programs. */
const patchTools = "provider/local/patching/tools";

let folder;
let variables;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "palisade-tools-"));
  for (const name of ["tools", patchTools]) cpSync(name, path.join(folder, name), { recursive: true });
  variables = {
    ...process.env,
    PALISADE_CACHE: path.join(folder, "cache"),
    PALISADE_HOME: path.join(folder, "home"),
    PALISADE_STATE: path.join(folder, "state"),
  };
  delete variables.VERBOSE;
  delete variables.STACK;
});
afterEach(() => rmSync(folder, { recursive: true }));

const write = (name, text, mode = 0o644) => {
  const file = path.join(folder, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, text);
  chmodSync(file, mode);
};
const bash = (script, extra = {}) =>
  spawnSync("bash", ["-c", script], { cwd: folder, env: { ...variables, ...extra }, encoding: "utf8" });
const withLibrary = (script, extra) => bash(`source tools/lib.sh; ${script}`, extra);
const mode = (name) => (statSync(path.join(folder, name)).mode & 0o777).toString(8);

describe("PATH", () => {
  it("has the clone's tools once, however often they were there", () => {
    const tools = path.join(folder, "build/bin");
    const PATH = `${tools}:${tools}:/first:${tools}:${variables.PATH}:${tools}`;
    const { stdout } = withLibrary('echo "$outer_path"; echo "$PATH"', { PATH });
    const outer = `/first:${variables.PATH}`;
    expect(stdout).toBe(`${outer}\n${tools}:${outer}\n`);
  });
});

describe("step", () => {
  it("prints the title, the time and the note; the output goes to the log", () => {
    const { stdout, status } = withLibrary('work() { echo detail; echo found >&3; }; step "A step" work');
    expect(stdout).toMatch(/^ {2}A step +\d+\.\d s {2}found\n$/);
    expect(status).toBe(0);
    expect(readFileSync(path.join(folder, "build/logs/A-step.log"), "utf8")).toBe("detail\n");
  });

  it("ends with the command's exit code and the end of its output", () => {
    const { stdout, stderr, status } = withLibrary(
      "work() { echo because; false; echo never; }; step bad work; echo on",
    );
    expect(status).toBe(1);
    expect(stdout).toMatch(/^ {2}bad +failed after \d+\.\d s\n$/);
    expect(stderr).toContain("because");
    expect(stderr).not.toContain("never");
    expect(stderr).toContain("build/logs/bad.log");
  });
});

describe("with_lock", () => {
  it("keeps strict mode inside", () => {
    const { stdout, status } = withLibrary("work() { false; echo never; }; with_lock build/lock work; echo never");
    expect(stdout).toBe("");
    expect(status).toBe(1);
  });

  it("is not kept by what the command leaves running", () => {
    const { stdout, status } = withLibrary(
      "with_lock build/lock bash -c 'sleep 20 >/dev/null 2>&1 & echo $!'; flock --nonblock build/lock echo free",
    );
    const [pid, free] = stdout.trim().split("\n");
    process.kill(Number(pid));
    expect(free).toBe("free");
    expect(status).toBe(0);
  });
});

describe(".ci/run", () => {
  // Only what decides the order and the sum; nothing is checked or tested.
  beforeEach(() => {
    for (const name of [".ci", "test/budgets.json", "test/skipped.json"]) {
      cpSync(name, path.join(folder, name), { recursive: true });
    }
    write(
      "Makefile",
      `.PHONY: check test
check:
	@echo the checks run
	@printf 'passed gofmt\\nfailed eslint\\n' >$$PALISADE_CHECKS
	@exit $(or $(CHECK),0)
test:
	@echo the tests run
	@sleep $(or $(SLEEP),0)
	@echo '{"exitCode":0,"seconds":1}' >build/reports/tests/unit.result
	@node tools/test/test-summary.mjs build/reports/tests
`,
    );
  });
  const lines = ({ stdout }) => stdout.trimEnd().split("\n");

  it("runs the checks, then the tests, although a check fails; the sum has both", () => {
    const run = bash(".ci/run", { CHECK: "1" });
    expect(run.status).not.toBe(0);
    expect(lines(run).filter((line) => line.endsWith("run"))).toEqual(["the checks run", "the tests run"]);
    expect(lines(run).at(-1)).toBe("1 passed, 1 failed");
  });

  it("fails when checks fail that are counted nowhere", () => {
    write("Makefile", ".PHONY: check test\ncheck:\n\t@exit 1\ntest:\n\t@echo 2 passed, 0 failed\n");
    expect(bash(".ci/run").status).toBe(1);
  });

  it("passes when both do", () => {
    write("Makefile", ".PHONY: check test\ncheck:\n\t@echo fine\ntest:\n\t@echo 2 passed, 0 failed\n");
    const run = bash(".ci/run");
    expect([run.status, lines(run).at(-1)]).toEqual([0, "2 passed, 0 failed"]);
  });

  it("ends with a sum when the time is over", () => {
    const run = bash(".ci/run", { SLEEP: "60", PALISADE_CI_MINUTES: "0.05" });
    expect(run.status).not.toBe(0);
    expect(run.stdout).toContain("FAILED the run as a whole: not finished after 0.05 minutes");
    expect(lines(run).at(-1)).toMatch(/^\d+ passed, [1-9]\d* failed$/);
  });
});

describe("test.sh", () => {
  // Every program that it starts is replaced by one that prints its name; a vitest project called bad fails.
  beforeEach(() => {
    for (const name of ["budgets.json", "skipped.json", "sampled.txt", "slices.txt"]) {
      cpSync(`test/${name}`, path.join(folder, "test", name));
    }
    const budgets = { minutes: 1, cpuSeconds: 60, quietMinutes: 1 };
    const layers = ["setup", "host-binaries", "build", "patch-tools", "acceptance", "one", "two", "bad", "e2e"];
    write("test/budgets.json", JSON.stringify({ layers: Object.fromEntries(layers.map((name) => [name, budgets])) }));
    for (const name of ["setup", "host-binaries", "build", "patch-tools"]) {
      const folder = name === "setup" ? "setup" : "build";
      write(
        `tools/${folder}/${name}.sh`,
        `#!/bin/sh\necho "${name} runs"\nexit \${FAIL_${name.replace("-", "_")}:-0}\n`,
        0o755,
      );
    }
    write("dist/test/support/acceptance/collect-go.js", "");
    write("dist/test/support/acceptance/tables.js", "");
    write("dist/test/support/acceptance/held.js", 'console.log("held rows are compared")');
    write(
      "node_modules/vitest/vitest.mjs",
      `import { writeFileSync } from "node:fs";
const project = process.argv[process.argv.indexOf("--project") + 1];
const status = project === "bad" ? "failed" : "passed";
console.log(project, "begins");
await new Promise((resolve) => setTimeout(resolve, 300));
console.log(project, "ends", process.env.PALISADE_FULL ? "at full length" : "sampled");
const file = process.argv.find((each) => each.startsWith("--outputFile.json=")).split("=")[1];
writeFileSync(file, JSON.stringify({ testResults: [{ name: "f", status, assertionResults: [{ status, fullName: "t" }] }] }));
process.exitCode = project === "bad" ? 1 : 0;
`,
    );
  });
  const test = (args, extra) => {
    const { status, stdout, stderr } = bash(`tools/test/test.sh ${args}`, extra);
    return { status, stderr, lines: stdout.trimEnd().split("\n") };
  };
  const ends = (lines) =>
    lines.filter((line) => / (begins|ends) ?/.test(line)).map((line) => line.replace(/^\w+\| /, ""));

  it("runs layers one after the other, although one fails", () => {
    const { status, lines } = test("one bad two");
    expect(ends(lines)).toEqual([
      ...["one begins", "one ends sampled", "bad begins", "bad ends sampled", "two begins", "two ends sampled"],
    ]);
    expect([status, lines.at(-1)]).toEqual([1, "2 passed, 1 failed"]);
    expect(lines[0]).toContain("Sampled");
    expect(lines.join("\n")).not.toContain("held rows");
  });

  it("runs layers side by side, and marks their lines", () => {
    const { status, lines } = test("one+two");
    expect([status, lines.at(-1)]).toEqual([0, "2 passed, 0 failed"]);
    const [first, second] = ends(lines);
    expect([first, second].sort()).toEqual(["one begins", "two begins"]);
    expect(lines).toContain("two| two begins");
  });

  it("compares the rows that were held after a whole run", () => {
    expect(test("--whole one").lines).toContain("held rows are compared");
  });

  it("runs nothing without a setup", () => {
    const { status, lines } = test("one", { FAIL_setup: "3" });
    expect([status, lines.at(-1)]).toEqual([1, "0 passed, 1 failed"]);
    expect(ends(lines)).toEqual([]);
  });

  it("builds what patches images for the layers that need it", () => {
    expect(test("one+e2e").lines).toContain("patch-tools runs");
    expect(test("one").lines).not.toContain("patch-tools runs");
  });

  it("records the layer that runs when the run is ended", async () => {
    const child = spawn("setsid", ["tools/test/test.sh", "one"], { cwd: folder, env: variables });
    let text = "";
    await new Promise((resolve) =>
      child.stdout.on("data", (data) => {
        text += data;
        if (text.includes("one begins")) resolve();
      }),
    );
    const closed = new Promise((resolve) => child.once("close", resolve));
    // Like timeout: ends every process that did not start a session of its own.
    process.kill(-child.pid, "SIGTERM");
    await closed;
    expect(JSON.parse(readFileSync(path.join(folder, "build/reports/tests/one.result"), "utf8"))).toMatchObject({
      ended: "the run was ended by SIGTERM",
    });
  });
});

describe("test-all.sh", () => {
  beforeEach(() => {
    write("test/slices.txt", "# slices\n1 | one\n2 | bad one+two\n");
    write("tools/test/test.sh", '#!/bin/sh\necho "$* at full length: $PALISADE_FULL"\n[ "$1" != bad ]\n', 0o755);
  });

  it("runs one slice, or all of them although one fails", () => {
    const one = bash("tools/test/test-all.sh 1");
    expect([one.status, one.stdout]).toEqual([0, "\n==== slice 1: one\none at full length: 1\n"]);
    const all = bash("tools/test/test-all.sh");
    expect(all.status).toBe(1);
    expect(all.stdout.match(/at full length: 1/g)).toHaveLength(2);
  });

  it("refuses a slice that there is not", () => {
    expect(bash("tools/test/test-all.sh 7").stderr).toContain("there is no slice '7'");
  });

  it("has slices of layers that there are, each with a budget", () => {
    const text = readFileSync("test/slices.txt", "utf8");
    const layers = [...text.matchAll(/^\d+ *\|(.*)$/gm)].flatMap(([, list]) => list.trim().split(/[ +]/));
    const { layers: budgets } = JSON.parse(readFileSync("test/budgets.json", "utf8"));
    expect(Object.keys(budgets)).toEqual(expect.arrayContaining(layers));
  });
});

describe("unchecked.mjs", () => {
  beforeEach(() => {
    write("a.txt", "a");
    write("b.txt", "b");
    write("key.txt", "1");
    // Prints the files that it is given, and refuses a file that contains "bad".
    write("check.sh", '#!/bin/sh\necho "$*" >>seen\n! grep -q bad "$@"\n', 0o755);
  });
  const check = () =>
    bash("printf 'a.txt\\nb.txt\\n' | node tools/check/unchecked.mjs --name test --key key.txt -- ./check.sh 3>note", {
      PALISADE_CACHE: path.join(folder, "cache"),
    }).status;
  const seen = () => {
    const file = path.join(folder, "seen");
    const text = existsSync(file) ? readFileSync(file, "utf8").trim() : "";
    rmSync(file, { force: true });
    return text;
  };

  it("checks contents once, and again when they or what decides change", () => {
    expect([check(), seen()]).toEqual([0, "a.txt b.txt"]);
    expect([check(), seen()]).toEqual([0, ""]);
    expect(readFileSync(path.join(folder, "note"), "utf8")).toBe("0 of 2 files are new or changed");
    write("b.txt", "c");
    expect([check(), seen()]).toEqual([0, "b.txt"]);
    write("b.txt", "b");
    expect([check(), seen()]).toEqual([0, ""]);
    write("key.txt", "2");
    expect([check(), seen()]).toEqual([0, "a.txt b.txt"]);
  });

  it("does not remember what failed", () => {
    write("b.txt", "bad");
    expect(check()).toBe(1);
    seen();
    expect([check(), seen()]).toEqual([1, "a.txt b.txt"]);
  });
});

describe("package.sh", () => {
  it("packs no output of a source that is gone", () => {
    write("build/host/agent", "");
    write("bin/npm", "#!/bin/sh\ntouch build/package/packed.tgz\n", 0o755);
    for (const name of ["components/kept", "components/host/gone", "provider/old/gone"]) {
      for (const end of ["js", "js.map", "d.ts"]) write(`dist/${name}.${end}`, "");
    }
    write("components/kept.ts", "");
    write("components/kept.mts", "");
    write("dist/components/kept.mjs", "");
    const { stdout, status } = bash("tools/build/package.sh", { PATH: `${folder}/bin:${process.env.PATH}` });
    expect(status).toBe(0);
    expect(stdout.trimEnd().split("\n").at(-1)).toMatch(/build\/package\/packed\.tgz$/);
    const files = readdirSync(path.join(folder, "dist"), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ name }) => name);
    expect(files.sort()).toEqual(["agent", "kept.d.ts", "kept.js", "kept.js.map", "kept.mjs"]);
  });
});

describe("go-tool.sh", () => {
  // A compiler that counts its runs and takes a moment for each.
  beforeEach(() => {
    write(
      "bin/go",
      `#!/usr/bin/env bash
case $1 in
version) echo "go version \${FAKE_GO_VERSION:-go1.26}" ;;
env) echo amd64 ;;
build)
  echo run >>"${folder}/runs"
  while [[ $1 != -o ]]; do shift; done
  echo half >"$2/tool"
  sleep 0.3
  [[ -z \${FAKE_GO_FAILS:-} ]] || exit 1
  echo whole >"$2/tool"
  ;;
esac
`,
      0o755,
    );
    for (const name of ["go.mod", "go.sum"]) write(`tools/pins/example/${name}`, name);
    variables.PATH = `${folder}/bin:${process.env.PATH}`;
  });
  const runs = () =>
    existsSync(path.join(folder, "runs")) ? readFileSync(path.join(folder, "runs"), "utf8").length / 4 : 0;
  const tool = (extra) => bash(`${patchTools}/go-tool.sh tools/pins/example`, extra);

  it("builds once for one content", () => {
    const first = tool().stdout;
    expect(readFileSync(path.join(first.trim(), "tool"), "utf8")).toBe("whole\n");
    expect(tool().stdout).toBe(first);
    expect(runs()).toBe(1);
  });

  it.each([
    ["go.mod", () => write("tools/pins/example/go.mod", "other"), {}],
    ["go.sum", () => write("tools/pins/example/go.sum", "other"), {}],
    ["flags", () => write("tools/pins/example/build.flags", "-tags=x\n"), {}],
    ["compiler", () => undefined, { FAKE_GO_VERSION: "go1.27" }],
  ])("builds anew for other content: %s", (_name, change, extra) => {
    const first = tool().stdout;
    change();
    const second = tool(extra).stdout;
    expect(second).not.toBe(first);
    expect(runs()).toBe(2);
  });

  it("builds once for clones that ask at the same time", async () => {
    const ask = () =>
      new Promise((resolve) => {
        let text = "";
        const child = spawn(`${patchTools}/go-tool.sh`, ["tools/pins/example"], { cwd: folder, env: variables });
        child.stdout.on("data", (data) => (text += data));
        child.once("close", () => resolve(text));
      });
    const answers = await Promise.all([ask(), ask(), ask()]);
    expect(new Set(answers).size).toBe(1);
    expect(runs()).toBe(1);
  });

  it("leaves nothing half after a failed build, and repeats it", () => {
    const failed = tool({ FAKE_GO_FAILS: "1" });
    expect(failed.status).not.toBe(0);
    expect(failed.stdout).toBe("");
    const answer = tool().stdout.trim();
    expect(readFileSync(path.join(answer, "tool"), "utf8")).toBe("whole\n");
  });
});

describe("packages.sh", () => {
  const asNobody = (script) =>
    process.getuid() === 0
      ? spawnSync("setpriv", ["--reuid", "65534", "--regid", "65534", "--clear-groups", "bash", "-c", script], {
          cwd: folder,
          env: variables,
          encoding: "utf8",
        })
      : bash(script);

  it("is silent when nothing is missing", () => {
    write("tools/setup/packages.txt", "bash | bash | running this\nbase | /etc/passwd | users\n");
    expect(bash("tools/setup/packages.sh")).toMatchObject({ stdout: "", status: 0 });
  });

  it("shows a user without root what is missing, why, and the one command", () => {
    chmodSync(folder, 0o755);
    write("tools/setup/packages.txt", "bash | bash | running this\nqqq | no-such-command-qqq | a reason\n");
    const { stdout, stderr, status } = asNobody("tools/setup/packages.sh");
    expect(status).toBe(1);
    expect(stdout).toMatch(/Root is needed.*\n {2}qqq: a reason\n/);
    expect(stderr).toContain(`sudo ${folder}/tools/setup/packages.sh install`);
  });
});

describe("tools of this machine", () => {
  const wanted = readFileSync("tools/pins/pulumi/build.flags", "utf8").match(/Version=(v[0-9.]+)/)[1];
  /** A machine with these commands before its own; by default each prints how it is called. */
  const onMachine = (script, commands) => {
    for (const [name, text] of Object.entries(commands)) write(`machine/${name}`, `#!/bin/sh\n${text}\n`, 0o755);
    return bash(`${script} 3>&1`, { PATH: `${folder}/machine:${process.env.PATH}` });
  };
  const refused = (name) => `echo "asked: ${name} $*" >&2; exit 9`;

  it("are used where they are suitable", () => {
    const node = onMachine("tools/setup/node.sh", { node: "echo v24.1.0", npm: refused("npm") });
    expect(node).toMatchObject({ stdout: "v24.1.0 of this machine\n", status: 0 });
    const pulumi = onMachine("tools/setup/pulumi.sh", {
      ...{ pulumi: `echo ${wanted}`, "pulumi-language-nodejs": "exit 9", go: refused("go") },
    });
    expect(pulumi).toMatchObject({ stdout: `${wanted} of this machine\n`, status: 0 });
    expect(existsSync(path.join(folder, "build/bin"))).toBe(false);
  });

  it.each([
    ["an old Node.js", "node.sh", { node: "echo v18.20.0", npm: refused("npm") }, "asked: npm ci"],
    [
      "a Pulumi of another version",
      "pulumi.sh",
      { pulumi: "echo v3.0.0", "pulumi-language-nodejs": "exit 9", go: refused("go") },
      "asked: go",
    ],
  ])("are not: %s", (_what, script, commands, asked) => {
    const { stdout, stderr, status } = onMachine(`tools/setup/${script}`, commands);
    expect(status).not.toBe(0);
    expect(stdout + stderr).toContain(asked);
  });
});

describe("stack-environment.sh", () => {
  beforeEach(() => {
    write("Pulumi.yaml", "name: palisade\nruntime: nodejs\n");
    write("Pulumi.local.yaml", "config:\n  palisade:environment: local\n");
  });
  const environment = (script, extra) => withLibrary(`source tools/stack/stack-environment.sh; ${script}`, extra);

  it("makes a home that only its owner can read, and never a second passphrase", () => {
    expect(environment("make_home").status).toBe(0);
    const passphrase = readFileSync(path.join(folder, "home/passphrase"), "utf8");
    expect(passphrase.trim()).toMatch(/^[A-Za-z0-9+/]{43}=$/);
    expect([mode("home"), mode("home/passphrase"), mode("home/backend")]).toEqual(["700", "600", "700"]);
    expect(environment("make_home").status).toBe(0);
    expect(readFileSync(path.join(folder, "home/passphrase"), "utf8")).toBe(passphrase);
    expect(readdirSync(path.join(folder, "home")).filter((name) => name.startsWith("."))).toEqual([]);
  });

  it("refuses a lost passphrase while stacks exist", () => {
    write("home/backend/.pulumi/stacks/palisade/local.json", "{}");
    const { status, stderr } = environment("make_home");
    expect(status).toBe(1);
    expect(stderr).toContain("home/passphrase is missing");
  });

  it("takes the variables of `palisade env`, and leaves stack, configuration and PATH to each command", () => {
    const lines = ["export PULUMI_BACKEND_URL='file:///own'", "unset PULUMI_CONFIG_PASSPHRASE", "export PATH=/other"];
    const rest = ["export PULUMI_STACK='$PULUMI_STACK'", "export PULUMI_OPTION_CONFIG_FILE='/file'"];
    write(
      "bin/palisade",
      `#!/bin/bash\necho "asked: $* of $PULUMI_STACK" >&2\ncat <<E\n${[...lines, ...rest].join("\n")}\nE\n`,
      0o755,
    );
    const shown = ["BACKEND_URL", "CONFIG_PASSPHRASE", "STACK", "OPTION_CONFIG_FILE"];
    const print = `echo "$PATH" ${shown.map((name) => `"\${PULUMI_${name}-unset}"`).join(" ")}`;
    const outer = { PULUMI_BACKEND_URL: "https://api.example", PULUMI_CONFIG_PASSPHRASE: "other", STACK: "one" };
    const { stdout, stderr } = environment(`before=$PATH; pulumi_environment; ${print}; echo "$before"`, outer);
    const [after, before] = stdout.trimEnd().split("\n");
    expect(after).toBe(`${before} file:///own unset unset unset`);
    expect(stderr).toBe("asked: env of one\n");
  });

  it("ends when `palisade env` fails", () => {
    write("bin/palisade", "#!/bin/bash\necho 'not built' >&2\nexit 1\n", 0o755);
    expect(environment("pulumi_environment; echo on")).toMatchObject({ status: 1, stdout: "", stderr: "not built\n" });
  });

  it.each(["../x", " ", "a/b"])("refuses the stack name %j", (name) => {
    expect(environment("true", { STACK: name }).stderr).toContain("is no stack name");
  });

  it("keeps the salt outside the clone, and the committed configuration up to date", () => {
    const file = "home/stacks/palisade.local.yaml";
    environment("make_home; write_stack_config");
    write(file, `${readFileSync(path.join(folder, file), "utf8")}encryptionsalt: v1:abc\n`);
    write("Pulumi.local.yaml", "config:\n  palisade:environment: metal\n");
    expect(environment("write_stack_config; echo $stack_config").stdout.trim()).toBe(path.join(folder, file));
    expect(readFileSync(path.join(folder, file), "utf8")).toBe(
      "config:\n  palisade:environment: metal\nencryptionsalt: v1:abc\n",
    );
    expect(readFileSync(path.join(folder, "Pulumi.local.yaml"), "utf8")).not.toContain("encryptionsalt");
  });

  it("uses a configuration with secrets of its own as it is", () => {
    write("Pulumi.local.yaml", "encryptionsalt: v1:own\nconfig: {}\n");
    expect(environment("make_home; write_stack_config; echo $stack_config").stdout.trim()).toBe(
      path.join(folder, "Pulumi.local.yaml"),
    );
  });

  it("separates stacks", () => {
    write("home/backend/.pulumi/stacks/palisade/local.json", "{}");
    expect(environment("stack_exists && echo yes").stdout).toBe("yes\n");
    expect(environment("stack_exists || echo no", { STACK: "other" }).stdout).toBe("no\n");
  });
});

describe("npm-installed.mjs", () => {
  const installed = (locked, record) => {
    write("package-lock.json", JSON.stringify({ packages: { "": {}, ...locked } }));
    if (record) {
      write("node_modules/.package-lock.json", JSON.stringify({ packages: record }));
      for (const name of Object.keys(record)) mkdirSync(path.join(folder, name), { recursive: true });
    }
    return bash("node tools/setup/npm-installed.mjs").status;
  };
  const a = { "node_modules/a": { version: "1.0.0", integrity: "sha512-x" } };
  const otherPlatform = { "node_modules/b": { version: "1.0.0", optional: true } };

  it.each([
    ["as locked", a, a, 0],
    ["not installed", a, undefined, 1],
    ["a package less", { ...a, "node_modules/c": { version: "1.0.0" } }, a, 1],
    ["one for another platform less", { ...a, ...otherPlatform }, a, 0],
    ["a package more", a, { ...a, "node_modules/c": { version: "1.0.0" } }, 1],
    ["another version", a, { "node_modules/a": { version: "1.0.1", integrity: "sha512-x" } }, 1],
    ["other content", a, { "node_modules/a": { version: "1.0.0", integrity: "sha512-y" } }, 1],
  ])("%s", (_name, locked, record, status) => expect(installed(locked, record)).toBe(status));
});

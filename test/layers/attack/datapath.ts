/**
 * The datapath of a host as it is delivered: what reaches its group goes through netd's programs and through nothing
 * else. When root removes a program, the port is closed; netd restores the program and reports it.
 */
import { describe, expect, it } from "vitest";
import { compileNetworkPolicies, type NetworkPolicyArgs } from "../../../components/policy/index.js";
import type { AgentClient } from "../../../provider/backends/index.js";
import { report, type Observation } from "../../support/acceptance/report.js";
import { eventually } from "../../support/hosts/environment.js";
import type { AttackedHost } from "./hosts.js";

const pins = "/sys/fs/bpf/palisade/v1";
/**
 * How many of the verifier's million instructions a program may take; the same number as in
 * bpf/datapath/packets_test.go.
 */
const instructionBudget = 30_000;

/** Part of what netd says of itself on its socket. */
interface Status {
  instructions: Record<string, number>;
  problems: string[] | null;
  bypasses: string[] | null;
  policyDeclared: boolean;
}

export function datapathAttacks(host: AttackedHost): void {
  const agent = <T>(use: (client: AgentClient) => Promise<T>): Promise<T> => host.environment.agent(use);
  const prove = (row: Omit<Observation, "table" | "pass" | "seconds">, started: number, pass: boolean): void => {
    report({ table: "conformance", ...row, pass, seconds: (Date.now() - started) / 1000 });
    expect(pass, `${row.id}: ${row.observed}`).toBe(true);
  };

  /** Makes a new connection each time; returns "HTTP 200", or what went wrong. */
  const request = async (): Promise<string> => {
    const url = String((await host.environment.outputs())["url"]);
    try {
      const response = await fetch(url, { signal: AbortSignal.timeout(5000), headers: { connection: "close" } });
      await response.text();
      return `HTTP ${response.status}`;
    } catch (error) {
      const { message, cause } = error as Error;
      return cause instanceof Error ? cause.message : message;
    }
  };
  const served = (): Promise<true> =>
    eventually("the group serves", 60, async () => ((await request()) === "HTTP 200" ? true : undefined));

  /** What the role answers on its own socket. */
  async function ask(path: string): Promise<string> {
    const { stdout, stderr, exitCode } = await host
      .probe()
      .run("/usr/libexec/palisade-probe", "do", "ask", "/run/palisade/netd.sock", path);
    expect(exitCode, stderr).toBe(0);
    return stdout.replace(/done\n$/, "");
  }
  const status = async (): Promise<Status> => JSON.parse(await ask("/v1/status")) as Status;

  /** The device to other machines, the only one, and the host's ends of groups' links. */
  async function devices(): Promise<{ uplink: string; links: string[] }> {
    const names = [...(await host.probe().read("/proc/net/dev")).matchAll(/^\s*(\S+):/gm)].map(([, name]) => name!);
    const links = names.filter((name) => /^pal[0-9a-f]{12}$/.test(name));
    const [uplink, ...others] = names.filter((name) => name !== "lo" && !links.includes(name));
    expect(others).toEqual([]);
    return { uplink: uplink!, links };
  }
  const property = async (device: string, name: string): Promise<string> =>
    (await host.probe().read(`/sys/class/net/${device}/${name}`)).trim();

  /** Packets of other machines that the program on the device passed on. */
  async function forwarded(): Promise<number> {
    const line = /^palisade_datapath_packets_total\{hook="from_device",reason="forwarded"\} (\d+)$/m;
    return Number(line.exec(await ask("/metrics"))?.[1] ?? Number.NaN);
  }

  const probe = (...command: string[]): Promise<string> => host.probe().output(...command);

  async function restartNetd(): Promise<void> {
    await probe("/usr/bin/systemctl", "daemon-reload");
    await probe("/usr/bin/systemctl", "restart", "palisade-netd");
  }

  describe("the datapath", () => {
    it("carries the group's traffic, with no rule or proxy of another kind beside it", async () => {
      const modules = (await host.probe().read("/proc/modules")).split("\n").map((line) => line.split(" ")[0]!);
      // The list is the kernel's: what every host loads is in it.
      expect(modules).toContain("overlay");
      const others = /^(nf_|nft_|nfnetlink|x_tables|ip6?_?tables|ip6?table_|xt_|br_netfilter|bridge|ebtable)/;
      expect(modules.filter((name) => others.test(name))).toEqual([]);
      const { bypasses, problems, policyDeclared } = await status();
      // Go's empty list is null. A field that netd does not report is undefined, and fails.
      expect([null, []]).toContainEqual(bypasses);
      expect([null, []]).toContainEqual(problems);
      expect(policyDeclared).toBe(true);
      await served();
      const before = await forwarded();
      for (let i = 0; i < 5; i++) expect(await request()).toBe("HTTP 200");
      expect(await forwarded()).toBeGreaterThan(before + 5);
      const flows = await host.environment.run("bin/palisade", ["flows", "web", "--last", "--json", "--port", "80"]);
      expect(flows.exitCode, flows.stderr).toBe(0);
      expect(flows.stdout).toMatch(/"endpoint":\s*"default\/web"/);
    });

    it("N17: passes the verifier of the host's kernel, under lockdown, within its budget", async () => {
      const started = Date.now();
      const { instructions } = await status();
      const release = (await host.probe().read("/proc/sys/kernel/osrelease")).trim();
      const counts = Object.entries(instructions);
      prove(
        {
          id: "N17",
          part: "host",
          observed: counts.map(([name, count]) => `${name}: ${count} instructions of ${instructionBudget}`).join("; "),
          evidence: `kernel ${release}`,
        },
        started,
        counts.length === 4 && counts.every(([, count]) => count > 0 && count <= instructionBudget),
      );
    });

    it("keeps the other services of the system away from bpf(2)", async () => {
      for (const unit of ["systemd-networkd", "systemd-udevd"]) {
        const filter = await probe("/usr/bin/systemctl", "show", "-p", "SystemCallFilter", "--value", unit);
        expect(filter.split(/\s+/).length, unit).toBeGreaterThan(10);
        expect(filter.split(/\s+/), unit).not.toContain("bpf");
      }
      const own = await probe("/usr/bin/systemctl", "show", "-p", "SystemCallFilter", "--value", "palisade-netd");
      expect(own.split(/\s+/)).toContain("bpf");
    });

    it("connects groups by netkit", async () => {
      const { attachments } = JSON.parse(await host.probe().read("/var/lib/palisade/netd/state.json")) as {
        attachments: Record<string, { endpoint: { name: string; kind: string } }>;
      };
      const endpoints = Object.values(attachments).map(({ endpoint }) => endpoint);
      expect(endpoints).toContainEqual(expect.objectContaining({ name: "default/web", kind: "netkit" }));
    });

    it.each(["from_device", "from_container"] as const)(
      "is closed when %s is detached, and netd attaches it again",
      async (program) => {
        await served();
        const { uplink, links } = await devices();
        for (const device of program === "from_device" ? [uplink] : links) {
          const pin = `${pins}/links/${await property(device, "ifindex")}-${program}`;
          expect(await host.probe().attack("detach", pin)).toBe("done");
        }
        expect(await request()).not.toBe("HTTP 200");
        await served();
        const repaired = new RegExp(`repaired.*${program} is not attached`);
        await eventually("the journal has the repair", 30, async () =>
          (await host.probe().journal("-u", "palisade-netd")).some((line) => repaired.test(line)) ? true : undefined,
        );
      },
    );

    it("keeps carrying traffic while netd does not run", async () => {
      await probe("/usr/bin/systemctl", "kill", "--signal=SIGKILL", "palisade-netd");
      for (let i = 0; i < 3; i++) expect(await request()).toBe("HTTP 200");
    });

    it("N18: is reported by the next refresh where it was changed by hand, and repaired by up", async () => {
      const started = Date.now();
      // Otherwise netd would repair it before Pulumi does.
      const patient = "/run/systemd/system/palisade-netd.service.d";
      expect(await host.probe().attack("mkdir", patient)).toBe("done");
      const command = "/usr/bin/palisade-agent netd -maintenance 1h";
      await host.probe().write(`${patient}/patient.conf`, `[Service]\nExecStart=\nExecStart=${command}\n`);
      await restartNetd();
      const before = (await agent((client) => client.getNetwork())).problems;
      expect(await host.probe().attack("empty-map", `${pins}/maps/endpoints`)).toBe("done");
      expect(await host.probe().attack("remove", `${pins}/maps/flows`)).toBe("done");
      const damaged = await request();
      const refresh = await host.environment.pulumi("refresh", "--yes", "--diff");
      expect(refresh.exitCode, refresh.stderr).toBe(0);
      const named = [
        'endpoint \\"default/web\\": its map entry is not as declared',
        "map flows: its pin is gone",
      ].filter((problem) => refresh.stdout.includes(problem) || refresh.stdout.includes(problem.replaceAll("\\", "")));
      const up = await host.environment.pulumi("up", "--yes", "--skip-preview");
      expect(up.exitCode, up.stderr).toBe(0);
      const after = (await agent((client) => client.getNetwork())).problems;
      const mended = await request();
      expect(await host.probe().attack("remove", `${patient}/patient.conf`)).toBe("done");
      await restartNetd();
      prove(
        {
          id: "N18",
          part: "host",
          observed: `a host's map entries and a pin removed by hand: ${damaged}; refresh names ${named.join("; ")}; up: ${mended}, ${after.length} problems left`,
          control: `before: ${before.length} problems`,
          evidence: refresh.stdout.match(/.*problems[^\n]*(\n.*){0,4}/)?.[0] ?? "",
        },
        started,
        before.length === 0 &&
          damaged !== "HTTP 200" &&
          named.length === 2 &&
          after.length === 0 &&
          mended === "HTTP 200",
      );
    });

    it("enforces the policy on the published port at once, and shows what it drops", async () => {
      await served();
      const declared = (await agent((client) => client.getNetworkPolicy()))!;
      const closed: NetworkPolicyArgs = { name: "closed", groupSelector: {}, policyTypes: ["Ingress"] };
      const compiled = compileNetworkPolicies({ endpoints: [{ name: "web" }], networkPolicies: [closed] });
      await agent((client) => client.applyNetworkPolicy(JSON.stringify(compiled), compiled.hash));
      expect(await request()).not.toBe("HTTP 200");
      const flows = await host.environment.run("bin/palisade", [
        ...["flows", "web", "--last", "--direction", "ingress", "--verdict", "dropped"],
      ]);
      expect(flows.stdout, flows.stderr).toMatch(/policy_default_denied/);
      const { hash } = JSON.parse(declared) as { hash: string };
      await agent((client) => client.applyNetworkPolicy(declared, hash));
      await served();
    });
  });
}

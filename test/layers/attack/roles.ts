/**
 * Rows X6 and K6: what the code of one role of the agent may reach once it is an attacker's. It runs as the role itself
 * does, under the directives of the role's own unit, and once more with nothing but the role's user. Rows H1 to H3:
 * what a host offers. Row X4: what a damaged record and a full disk leave.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../../support/hosts/environment.js";
import type { Probe } from "../../support/hosts/probe.js";
import { admit, prove } from "../../support/acceptance/prove.js";
import { Groups, harmless, Images, type AttackedHost } from "./hosts.js";

const state = "/var/lib/palisade";
/** What a role may want of the others, by the name that the tests show. */
const resources: Record<string, string[]> = {
  "groups.sock": ["connect", "/run/palisade/groups.sock"],
  "images.sock": ["connect", "/run/palisade/images.sock"],
  "netd.sock": ["connect", "/run/palisade/netd.sock"],
  "integrity.sock": ["connect", "/run/palisade/integrity.sock"],
  "containerd.sock": ["connect", "/run/containerd/containerd.sock"],
  "containerd's ttrpc": ["connect", "/run/containerd/containerd.sock.ttrpc"],
  "the service manager": ["connect", "/run/systemd/private"],
  "files of api": ["list", `${state}/agent/api`],
  "files of groups": ["list", `${state}/agent/groups`],
  "files of images": ["list", `${state}/agent/images`],
  "files of netd": ["list", `${state}/netd`],
  "files of containerd": ["list", `${state}/containerd`],
  "logs of containers": ["list", `${state}/logs`],
  "first disk": ["open-file", "/dev/vda", "r"],
  "second disk": ["open-file", "/dev/vdb", "r"],
  console: ["open-file", "/dev/ttyS0", "w"],
  "device mapper": ["open-file", "/dev/mapper/control", "w"],
  "enrolment channel": ["open-file", "/dev/virtio-ports/palisade.enrollment", "w"],
};
/** Calls of the kernel that only netd needs one of. */
const calls: Record<string, string[]> = {
  bpf: ["bpf"],
  io_uring: ["io-uring"],
  userfaultfd: ["userfaultfd"],
  perf: ["perf"],
  "user namespace": ["user-namespace"],
  ptrace: ["trace-me"],
};

interface Role {
  name: string;
  /** Its own user; absent: user 0, of whom only the unit's directives take the rights. */
  uid?: number;
  /** What it needs of the resources, as its unit runs it. */
  own: string[];
  /** What its user reaches without the unit's directives. Default: the same. */
  byUser?: string[];
  calls: string[];
}
const roles: Role[] = [
  {
    name: "api",
    uid: 840,
    own: ["groups.sock", "integrity.sock", "files of api", "enrolment channel"],
    calls: [],
  },
  {
    name: "groups",
    uid: 841,
    own: [
      ...["groups.sock", "images.sock", "netd.sock", "integrity.sock", "containerd.sock"],
      ...["files of groups", "logs of containers"],
    ],
    // A unit's supplementary group opens the socket of the role integrity.
    byUser: [
      ...["groups.sock", "images.sock", "netd.sock", "containerd.sock"],
      ...["files of groups", "logs of containers"],
    ],
    calls: [],
  },
  { name: "images", uid: 842, own: ["files of images"], byUser: ["images.sock", "files of images"], calls: [] },
  { name: "integrity", own: ["device mapper"], calls: [] },
  { name: "netd", own: ["files of netd"], calls: ["bpf"] },
  { name: "template", own: ["groups.sock"], calls: [] },
];

const transient = (name: string) => `palisade-attack-${name}.service`;
const outputOf = (name: string) => `/run/palisade-attack-${name}`;

/** The attacks as one command of the probe that goes on after each. */
const commandOf = (attacks: string[][]) => attacks.map((attack) => attack.join(" ")).join(" also ");

/** A unit that runs attacks, with the directives of [Service] that say what the role may do. */
export function unitOf(service: string, attacks: string[][], output: string): string {
  const own = /^(Type|ExecStart|Restart|RestartSec|RemainAfterExit|TimeoutStartSec|SyslogLevel)=/;
  const directives = service
    .split(/^(?=\[)/m)
    .filter((section) => section.startsWith("[Service]"))
    .flatMap((section) => section.split("\n").slice(1))
    .filter((line) => line !== "" && !line.startsWith("#") && !own.test(line))
    .map((line) => line.replace(/^ExecPaths=.*/, `ExecPaths=${harmless}`));
  const run = ["Type=oneshot", "SuccessExitStatus=1", `StandardOutput=truncate:${output}`];
  return [
    ...["[Unit]", "Description=Attack of the tests", "[Service]", ...directives, ...run],
    `ExecStart=${harmless} do ${commandOf(attacks)}`,
    "",
  ].join("\n");
}

/** What came of each attack, by its name. */
type Answers = Record<string, string>;

function answersOf(names: string[], output: string): Answers {
  const lines = output.trim().split("\n");
  expect(lines.length, output).toBe(names.length);
  return Object.fromEntries(names.map((name, index) => [name, lines[index]!]));
}

/** Runs attacks under the directives of units, `undefined`: under none. */
async function runAs(probe: Probe, names: (string | undefined)[]): Promise<Map<string | undefined, Answers>> {
  const attacks = { ...resources, ...calls };
  for (const name of names) {
    const service = name === undefined ? "" : await probe.read(`/usr/lib/systemd/system/palisade-${name}.service`);
    const unit = unitOf(service, Object.values(attacks), outputOf(name ?? "nobody"));
    await probe.write(`/run/systemd/system/${transient(name ?? "nobody")}`, unit);
  }
  await probe.output("/usr/bin/systemctl", "daemon-reload");
  const answers = new Map<string | undefined, Answers>();
  for (const name of names) {
    await probe.output("/usr/bin/systemctl", "start", transient(name ?? "nobody"));
    answers.set(name, answersOf(Object.keys(attacks), await probe.read(outputOf(name ?? "nobody"))));
  }
  for (const name of names) {
    await probe.attack("remove", `/run/systemd/system/${transient(name ?? "nobody")}`);
    await probe.attack("remove", outputOf(name ?? "nobody"));
  }
  await probe.output("/usr/bin/systemctl", "daemon-reload");
  return answers;
}

const reached = (answers: Answers, among: Record<string, unknown>) =>
  Object.keys(among).filter((name) => answers[name] === "done");
const listed = (names: string[]) => (names.length === 0 ? "nothing" : names.join(", "));
const same = (one: string[], other: string[]) => listed([...one].sort()) === listed([...other].sort());

export function roleAttacks(enforce: AttackedHost, isolated: AttackedHost): void {
  describe("a role of the agent whose code is an attacker's", () => {
    let answers: Map<string | undefined, Answers>;
    let control: Answers;
    let seconds = 0;

    beforeAll(async () => {
      const started = Date.now();
      answers = await runAs(
        enforce.probe(),
        roles.map(({ name }) => name),
      );
      control = (await runAs(isolated.probe(), [undefined])).get(undefined)!;
      seconds = Date.now() - started;
    });

    it("X6: reaches its own sockets, files and devices only", () => {
      const found = roles.map((role) => ({ ...role, reaches: reached(answers.get(role.name)!, resources) }));
      const free = reached(control, resources);
      prove(
        {
          id: "X6",
          part: "unit",
          observed: found.map(({ name, reaches }) => `${name} reaches ${listed(reaches)}`).join("; "),
          control: `user 0 under no unit's directives reaches ${listed(free)}`,
          evidence: JSON.stringify(Object.fromEntries([...answers].map(([name, each]) => [name ?? "", each]))),
        },
        Date.now() - seconds,
        found.every(({ own, reaches }) => same(own, reaches)) && same(free, Object.keys(resources)),
      );
    });

    it("X6: reaches no more when the unit's directives do not hold it", async () => {
      const started = Date.now();
      const found: { name: string; reaches: string[]; wanted: string[]; seen: Answers }[] = [];
      for (const { name, uid, own, byUser } of roles) {
        if (uid === undefined) continue;
        const attacks = Object.values(resources).map((attack) => ["as", String(uid), ...attack]);
        const { stdout } = await enforce.probe().run(harmless, "do", ...commandOf(attacks).split(" "));
        const seen = answersOf(Object.keys(resources), stdout);
        found.push({ name, seen, reaches: reached(seen, resources), wanted: byUser ?? own });
      }
      prove(
        {
          id: "X6",
          part: "user",
          observed: found.map(({ name, reaches }) => `${name}'s user reaches ${listed(reaches)}`).join("; "),
          control: `user 0 under no unit's directives reaches ${listed(reached(control, resources))}`,
          evidence: JSON.stringify(Object.fromEntries(found.map(({ name, seen }) => [name, seen]))),
        },
        started,
        found.length === 3 && found.every(({ reaches, wanted }) => same(reaches, wanted)),
      );
    });

    it("K6: has no calls of the kernel that it does not need", () => {
      const found = roles.map((role) => ({ ...role, may: reached(answers.get(role.name)!, calls) }));
      const free = reached(control, calls);
      prove(
        {
          id: "K6",
          part: "roles",
          observed: found.map(({ name, may }) => `${name} may ${listed(may)}`).join("; "),
          control: `user 0 under no unit's directives, nothing given up by the initrd: ${listed(free)}`,
          evidence: JSON.stringify(Object.fromEntries(found.map(({ name }) => [name, answers.get(name)]))),
          missing: "root outside of the roles is not confined before SELinux enforces",
        },
        Date.now() - seconds,
        found.every(({ calls: needed, may }) => same(needed, may)) && same(free, Object.keys(calls)),
      );
    });
  });

  describe("what a host offers", () => {
    /** Sockets that wait for others, as "tcp 8443", or "loopback tcp 8443" when no other machine reaches them. */
    const listening = async (probe: Probe): Promise<string[]> => {
      const found: string[] = [];
      for (const protocol of ["tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"]) {
        const table = await probe.read(`/proc/net/${protocol}`).catch((error: unknown) => {
          // The kernel has no table of a protocol that it does not have.
          if (/no such file/.test(String(error))) return "";
          throw error;
        });
        for (const line of table.split("\n").slice(1)) {
          const [, local, , socketState] = line.trim().split(/\s+/);
          if (local === undefined || (protocol.startsWith("tcp") && socketState !== "0A")) continue;
          const [address, port] = local.split(":");
          const loopback = /^(.{6}7F|0{24}01000000)$/.test(address!) ? "loopback " : "";
          found.push(`${loopback}${protocol.replace(/6$/, "")} ${parseInt(port!, 16)}`);
        }
      }
      return [...new Set(found)].sort();
    };
    /** Accounts that a password opens, of the lines of shadow(5). */
    const withPassword = (shadow: string) =>
      shadow
        .split("\n")
        .filter((line) => line !== "" && !/^[^:]+:[!*]/.test(line))
        .map((line) => line.split(":")[0]!);

    it("H1: only the agent's port for other machines, and no login", async () => {
      const started = Date.now();
      const probe = enforce.probe();
      const ports = await listening(probe);
      expect(await probe.attack("start", harmless, "do", "listen", 5555, 30)).toBe("done");
      const control = await eventually("another listener", 20, async () => {
        const now = await listening(probe);
        return now.includes("tcp 5555") ? now : undefined;
      });
      const running = (
        await probe.output(
          ...["/usr/bin/systemctl", "list-units", "--type=service", "--state=running", "--plain", "--no-legend"],
        )
      )
        .trim()
        .split("\n")
        .map((line) => line.split(/\s+/)[0]!)
        .sort();
      const opened = withPassword(await probe.read("/etc/shadow"));
      const known =
        /^(containerd|palisade-(api|groups|images|integrity|netd|probe)|systemd-(journald|networkd|resolved|udevd))\.service$/;
      const offered = ["tcp 8443", "udp 68"];
      const remote = ports.filter((port) => !port.startsWith("loopback "));
      const evidence = "/proc/net, units that run, /etc/shadow";
      prove(
        {
          id: "H1",
          part: "other-machines",
          observed: `open to other machines: ${remote.join(", ")} (udp 68 is the lease's); services: ${running.join(", ")}; accounts with a password: ${listed(opened)}`,
          control: `with another listener: ${control.join(", ")}; a line with a password: ${withPassword("root:$y$j9T$x:1::::::\n").join()}`,
          evidence,
        },
        started,
        remote.includes("tcp 8443") &&
          remote.every((port) => offered.includes(port)) &&
          running.every((unit) => known.test(unit)) &&
          opened.length === 0 &&
          withPassword("root:$y$j9T$x:1::::::\n").length === 1,
      );
      admit(
        {
          id: "H1",
          part: "loopback",
          observed: `open to processes of the host: ${listed(ports.filter((port) => !remote.includes(port)))}`,
          evidence:
            "containerd's server for exec and attach listens on the loopback address and cannot be configured away; CRI hands out no request that it would serve",
        },
        started,
        ports.length === remote.length,
      );
    });

    it("H2: nothing that is written to is executed, gives privileges, or is a device", async () => {
      const started = Date.now();
      const loose = async (probe: Probe) => {
        const lines = (await probe.read("/proc/1/mountinfo")).split("\n").filter(Boolean);
        return lines.flatMap((line) => {
          const [before, after] = line.split(" - ");
          const [place, options] = before!.split(" ").slice(4) as [string, string];
          const kind = after!.split(" ")[0]!;
          const flags = options.split(",");
          const holdsFiles = ["tmpfs", "ext4", "devtmpfs", "overlay", "ramfs"].includes(kind);
          // A container's programs lie in the lower layers of its root; what it writes there, row C6 is about.
          const containers = kind === "overlay" && place.startsWith("/run/containerd/");
          if (!holdsFiles || flags[0] !== "rw" || containers) return [];
          // There the devices are.
          const wanted = kind === "devtmpfs" ? ["noexec", "nosuid"] : ["noexec", "nosuid", "nodev"];
          const absent = wanted.filter((flag) => !flags.includes(flag));
          return absent.length === 0 ? [] : [`${place} (${kind}) lacks ${absent.join(" and ")}`];
        });
      };
      const found = await loose(enforce.probe());
      // There the tests have mounted all places with exec.
      const control = await loose(isolated.probe());
      prove(
        {
          id: "H2",
          observed: listed(found),
          control: `places mounted with exec: ${listed(control)}`,
          evidence: "/proc/1/mountinfo; roots of containers are row C6's",
        },
        started,
        found.length === 0 && control.length > 0,
      );
    });

    it("H3: no program gives privileges", async () => {
      const started = Date.now();
      const probe = enforce.probe();
      const planted = "/run/palisade-attack-set-id";
      const list = async () => {
        const attacks = ["/", "/var", "/run", "/tmp", "/dev"].map((place) => ["privileged-files", place]);
        const output = await probe.output(harmless, "do", ...commandOf(attacks).split(" "));
        return output.split("\n").filter((line) => line.startsWith("/"));
      };
      const found = await list();
      expect(await probe.attack("set-id", planted)).toBe("done");
      const control = await list();
      await probe.attack("remove", planted);
      prove(
        {
          id: "H3",
          observed: `setuid, setgid or with capabilities: ${listed(found)}`,
          control: `one planted: ${listed(control)}`,
          evidence: "modes and security.capability of all files of the root and of memory",
        },
        started,
        found.length === 0 && control.join() === planted,
      );
    });
  });

  describe("the state disk", () => {
    let images: Images;
    let groups: Groups;
    let reference = "";
    const command = ["/probe", "do", "sleep", "3600"];
    const runs = async (name: string) =>
      eventually(`${name} runs`, 120, async () => {
        const [container] = (await groups.get(name)).status!.containers;
        return container?.containerId === "" ? undefined : container!.containerId;
      });
    const tasks = () => enforce.probe().output("/usr/bin/ctr", "--namespace", "k8s.io", "tasks", "list");
    const isActive = (unit: string) =>
      eventually(`${unit} is active`, 60, async () => {
        const { stdout } = await enforce.probe().run("/usr/bin/systemctl", "is-active", unit);
        return stdout.trim() === "active" ? true : undefined;
      });

    beforeAll(async () => {
      images = new Images(enforce.environment);
      groups = new Groups(enforce.environment, images);
      ({ reference } = await images.sealed("attack/state", [{ "/probe": images.probe }]));
    });
    afterAll(async () => {
      for (const name of ["damaged", "full"]) await groups.remove(name);
    });

    it("X4: a damaged record leaves the group's containers as they are", async () => {
      const started = Date.now();
      const probe = enforce.probe();
      await groups.declare("damaged", reference, command, { restart: true });
      const id = await runs("damaged");
      await probe.write(`${state}/agent/groups/damaged.json`, "{");
      await probe.output("/usr/bin/systemctl", "restart", "palisade-groups.service");
      const event = await eventually("the report", 120, async () => {
        const { events } = (await groups.get("damaged")).status!;
        return events.find(({ reason }) => reason === "RecordDamaged")?.message;
      });
      await eventually("the host is ready", 120, async () =>
        (await enforce.environment.agent((client) => client.getHost())).ready ? true : undefined,
      );
      const goesOn = (await tasks()).includes(id);
      await groups.remove("damaged");
      const remains = (await tasks()).includes(id);
      prove(
        {
          id: "X4",
          part: "damaged-record",
          observed: `its container goes on: ${goesOn}; after the group is deleted: ${remains}`,
          control: `reported: ${event}`,
          evidence: "ctr tasks list, events of the group",
        },
        started,
        goesOn && !remains,
      );
    });

    it("X4: a full disk stops neither a deletion nor the network", async () => {
      const started = Date.now();
      const probe = enforce.probe();
      const filler = `${state}/filler`;
      await groups.declare("full", reference, command, { restart: true });
      const id = await runs("full");
      expect(await probe.attack("fill", filler, 1 << 30)).toBe("done");
      let refused = "";
      try {
        refused = await groups.declare("another", reference, command).then(() => "declared", String);
        await groups.remove("full");
        await probe.output("/usr/bin/systemctl", "restart", "palisade-netd.service");
        await isActive("palisade-netd.service");
      } finally {
        expect(await probe.attack("remove", filler)).toBe("done");
      }
      const remains = (await tasks()).includes(id);
      const web = await eventually("the other group serves", 60, async () => {
        const response = await fetch(String((await enforce.environment.outputs())["url"]));
        return response.ok ? response.status : undefined;
      });
      await groups.declare("full", reference, command, { restart: true });
      const again = await runs("full");
      prove(
        {
          id: "X4",
          part: "full-disk",
          observed: `a deleted group remains: ${remains}; netd starts; another group: HTTP ${web}`,
          control: `a new group: ${refused.slice(0, 200)}; with room again it runs: ${again !== ""}`,
          evidence: "the state disk has no block left",
          missing: "a disk that cannot be opened, and the agent's reserve",
        },
        started,
        !remains && /no space left/.test(refused) && again !== "" && again !== id,
      );
    });
  });
}

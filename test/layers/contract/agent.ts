/**
 * The contract of AgentClient: what a host does with groups, image policies and its network policy, as the provider's
 * resources see it. The tests go on from each other.
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { create, toJsonString, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compileNetworkPolicies } from "../../../components/policy/compile.js";
import type { AgentClient, HostConnection } from "../../../provider/backends/index.js";
import { makeAuthority } from "../../../provider/local/certificates/testing.js";
import {
  ContainerPhase,
  GroupPhase,
  GroupSchema,
  GroupSpecSchema,
  Protocol,
  RestartPolicy,
  type ContainerSchema,
  type ContainerStatus,
  type Group,
  type GroupSpec,
  type ImageRegistrySchema,
} from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { ImagePolicySchema } from "../../../hosts/api/gen/palisade/agent/v1/images_pb.js";

export interface AgentSubject {
  connection: HostConnection;
  connect(connection: HostConnection): AgentClient;
  /** References of images of one repository that the host can run. */
  images: [string, string];
  /** How the host reaches their registry. */
  registry: MessageInitShape<typeof ImageRegistrySchema>;
  /** False where the host's datapath cannot be loaded, which needs root. */
  hasNetwork: boolean;
  /** Makes the agent unreachable until the returned function is called. */
  silence(): Promise<() => Promise<void>>;
}

/** Gives the subject; called once. */
export type MakeAgentSubject = () => Promise<{ subject: AgentSubject; dispose(): Promise<void> }>;

const absent = `registry.test/team/app@sha256:${"0".repeat(64)}`;

type SpecInit = MessageInitShape<typeof GroupSpecSchema>;
type ContainerInit = MessageInitShape<typeof ContainerSchema>;

const failureOf = (work: Promise<unknown>): Promise<Error> =>
  work.then(
    () => expect.fail("the call succeeds, expected an error"),
    (error: Error) => error,
  );

/** Watches a group until it is as wanted. */
async function until(client: AgentClient, name: string, isThere: (group: Group) => boolean): Promise<Group> {
  const watching = new AbortController();
  let last: Group | undefined;
  const patience = setTimeout(() => watching.abort(new Error("the group does not reach the expected state")), 20_000);
  try {
    for await (const group of client.watchGroup(name, watching.signal)) {
      last = group;
      if (isThere(group)) return group;
    }
    throw new Error("the stream of reports has ended");
  } catch (error) {
    throw new Error(`${name}: ${(error as Error).message}; last seen: ${last ? toJsonString(GroupSchema, last) : "-"}`);
  } finally {
    clearTimeout(patience);
    watching.abort();
  }
}

const isRunning = ({ generation, status }: Group): boolean =>
  status?.observedGeneration === generation && status.containers.every(({ phase }) => phase === ContainerPhase.RUNNING);
const only = (group: Group | undefined): ContainerStatus => group!.status!.containers[0]!;

export function agentContract(implementation: string, make: MakeAgentSubject): void {
  describe(`agent: ${implementation}`, () => {
    let subject: AgentSubject;
    let dispose: () => Promise<void>;
    let client: AgentClient;
    let folder: string;

    /** A group of one container that runs until it is stopped. */
    const groupOf = (name: string, container: ContainerInit = {}, more: SpecInit = {}): GroupSpec =>
      create(GroupSpecSchema, {
        name,
        containers: [{ name: "server", image: subject.images[0], ...container }],
        imageRegistries: [subject.registry],
        ...more,
      });

    beforeAll(async () => {
      folder = await mkdtemp(path.join(tmpdir(), "palisade-agent-contract-"));
      ({ subject, dispose } = await make());
      client = subject.connect(subject.connection);
    });
    afterAll(async () => {
      client?.close();
      await dispose?.();
      await rm(folder, { recursive: true, force: true });
    });

    describe("the host", () => {
      it("says who it is, and until when its certificate is valid", async () => {
        const host = await client.getHost();
        expect(host).toMatchObject({ hostId: subject.connection.hostId, ready: true, readyMessage: "" });
        expect(timestampDate(host.certificateNotAfter!).getTime()).toBeGreaterThan(Date.now());
        expect((await client.getIntegrity()).lockdown).toEqual(expect.any(String));
      });

      it.each([
        ["certificateFile", "clientCertificateFile"],
        ["keyFile", "clientKeyFile"],
      ] as const)("is not asked when the client's %s cannot be read, which is named", (field, property) => {
        const file = path.join(folder, "absent.pem");
        expect(() => subject.connect({ ...subject.connection, [property]: file })).toThrow(
          `clientIdentity.${field}: ${file} cannot be read`,
        );
      });

      const questions: [string, (agent: AgentClient) => Promise<unknown>][] = [
        ["getHost", (agent) => agent.getHost()],
        ["getIntegrity", (agent) => agent.getIntegrity()],
        ["applyGroup", (agent) => agent.applyGroup(groupOf("unheard"))],
        ["getGroup", (agent) => agent.getGroup("unheard")],
        ["deleteGroup", (agent) => agent.deleteGroup("unheard")],
        ["watchGroup", (agent) => until(agent, "unheard", () => true)],
        ["getLogs", (agent) => agent.getLogs("unheard", "server", 1)],
        ["applyImagePolicy", (agent) => agent.applyImagePolicy(create(ImagePolicySchema, { name: "unheard" }))],
        ["getImagePolicy", (agent) => agent.getImagePolicy("unheard")],
        ["deleteImagePolicy", (agent) => agent.deleteImagePolicy("unheard")],
        ["applyNetworkPolicy", (agent) => agent.applyNetworkPolicy("{}", "")],
        ["getNetworkPolicy", (agent) => agent.getNetworkPolicy()],
        ["deleteNetworkPolicy", (agent) => agent.deleteNetworkPolicy()],
        ["getNetwork", (agent) => agent.getNetwork()],
        ["repairNetwork", (agent) => agent.repairNetwork()],
        ["suspendReconcile", (agent) => agent.suspendReconcile(1)],
      ];
      /** What each question to a host fails with. */
      const failures = async (connection: HostConnection): Promise<[string, string][]> => {
        const agent = subject.connect(connection);
        try {
          return await Promise.all(
            questions.map(async ([name, ask]): Promise<[string, string]> => {
              const failure = await failureOf(ask(agent));
              // `until` wraps the error that it gets.
              const kind = name === "watchGroup" ? failure.message : `${failure.name}: ${failure.message}`;
              return [name, kind];
            }),
          );
        } finally {
          agent.close();
        }
      };

      it("that is another one is reported as such, whatever it is asked", async () => {
        const authority = await makeAuthority(folder, "other");
        const others = [
          { ...subject.connection, hostId: "host-ffffffffffffffff" },
          { ...subject.connection, certificateAuthority: await readFile(authority.certificateFile, "utf8") },
        ];
        for (const connection of others) {
          const named = `host ${connection.hostId} at ${connection.endpoint}: something else answers there`;
          for (const [name, failure] of await failures(connection)) {
            expect(failure, name).toContain(name === "watchGroup" ? named : `ForeignHostError: ${named}`);
          }
        }
      });

      it("that does not answer is reported as such, whatever it is asked, and is the same host later", async () => {
        const restore = await subject.silence();
        const { hostId, endpoint } = subject.connection;
        const named = `host ${hostId} at ${endpoint}: does not answer`;
        try {
          for (const [name, failure] of await failures(subject.connection)) {
            expect(failure, name).toContain(name === "watchGroup" ? named : `UnreachableHostError: ${named}`);
          }
        } finally {
          await restore();
        }
        expect((await client.getHost()).hostId).toBe(hostId);
      });
    });

    describe("a group", () => {
      const secure = (value: string) => ({
        environment: [
          { name: "MODE", value: "production" },
          { name: "TOKEN", secure: true, secureValue: value },
        ],
      });

      it("that is not there is undefined, and deleted without harm", async () => {
        expect(await client.getGroup("web")).toBeUndefined();
        await client.deleteGroup("web");
        const asks = [() => until(client, "web", () => true), () => client.getLogs("web", "server", 1)];
        for (const ask of asks) {
          expect((await failureOf(ask())).message).toContain('group "web" is not declared on this host');
        }
      });

      it("is only tried out by a dry run", async () => {
        const tried = await client.applyGroup(groupOf("web"), true);
        expect([tried.generation, tried.spec?.name]).toEqual([1n, "web"]);
        expect(await client.getGroup("web")).toBeUndefined();
      });

      it("runs with the defaults filled in, and shows no secret", async () => {
        const spec = groupOf(
          "web",
          {
            ...secure("canary-1"),
            resources: { cpuRequest: 0.1, memoryRequestBytes: 2n ** 26n },
            ports: [{ port: 80 }],
          },
          { ports: [{ port: 80 }] },
        );
        const declared = await client.applyGroup(spec);
        expect(declared.generation).toBe(1n);
        const running = await until(client, "web", isRunning);
        expect(running.status).toMatchObject({
          phase: GroupPhase.RUNNING,
          address: "10.88.0.2",
          observedGeneration: 1n,
        });
        expect(only(running)).toMatchObject({
          name: "server",
          reason: "",
          restartCount: 0,
          imageDigest: subject.images[0].split("@")[1],
        });
        expect(only(running).containerId).not.toBe("");
        expect(running.spec).toMatchObject({
          restartPolicy: RestartPolicy.ALWAYS,
          ports: [{ port: 80, protocol: Protocol.TCP }],
        });
        expect(running.spec!.containers[0]).toMatchObject({
          ports: [{ port: 80, protocol: Protocol.TCP }],
          resources: { cpuLimit: 0.1, memoryLimitBytes: 2n ** 26n },
        });
        for (const group of [declared, running, await client.getGroup("web")]) {
          expect(toJsonString(GroupSchema, group!)).not.toContain("canary");
        }
        // An `up` that was killed half-way declares it again: the same group, whose container keeps running.
        const again = await client.applyGroup(spec);
        expect([again.generation, only(again).containerId]).toEqual([1n, only(running).containerId]);
      });

      it("keeps its container through a dry run of a change, and gets a new one by the change", async () => {
        const before = (await client.getGroup("web"))!;
        const changed = groupOf("web", secure("canary-1"));
        expect((await client.applyGroup(changed, true)).generation).toBe(2n);
        const kept = await client.getGroup("web");
        expect([kept!.generation, only(kept).containerId]).toEqual([1n, only(before).containerId]);
        expect((await client.applyGroup(changed)).generation).toBe(2n);
        const running = await until(client, "web", isRunning);
        expect(only(running).containerId).not.toBe(only(before).containerId);
      });

      it("is another one with another secret, though it shows none", async () => {
        expect((await client.applyGroup(groupOf("web", secure("canary-2")))).generation).toBe(3n);
        expect((await client.applyGroup(groupOf("web", secure("canary-2")))).generation).toBe(3n);
      });

      it("is not declared over a change that somebody else has just made", async () => {
        const changed = groupOf("web", secure("canary-3"));
        for (const [spec, expected] of [
          [changed, 2n],
          [groupOf("absent"), 1n],
        ] as const) {
          const failure = await failureOf(client.applyGroup(spec, false, expected));
          expect(failure.name).toBe("Error");
          expect(failure.message).toMatch(/expectedGeneration: group "\w+" has generation \d, not \d/);
          expect(failure.message).not.toContain("canary");
        }
        expect((await client.getGroup("web"))?.generation).toBe(3n);
        expect((await client.applyGroup(changed, false, 3n)).generation).toBe(4n);
      });

      it("gets no port of the host, nor of another group in the same protocol", async () => {
        await client.applyGroup(groupOf("web", {}, { ports: [{ port: 80 }] }));
        const publish = (port: number, protocol = Protocol.TCP) =>
          client.applyGroup(groupOf("other", {}, { ports: [{ port: 81 }, { port, protocol }] }), true);
        for (const [port, reason] of [
          [80, 'is published by group "web"'],
          [8443, "is the host's own"],
        ] as const) {
          const failure = await failureOf(publish(port));
          expect(failure.name).toBe("Error");
          expect(failure.message).toContain(`ports[1].port: TCP port ${port} ${reason}`);
        }
        expect((await publish(80, Protocol.UDP)).generation).toBe(1n);
      });

      it.each([
        ["cpuLimit", { cpuLimit: 10_000 }],
        ["memoryLimitBytes", { memoryLimitBytes: 2n ** 50n }],
      ])("gets no more than the host has: %s", async (field, resources) => {
        const failure = await failureOf(client.applyGroup(groupOf("big", { resources }), true));
        expect(failure.name).toBe("Error");
        expect(failure.message).toContain(`containers[0].resources.${field}: `);
      });

      const container = (more: ContainerInit): SpecInit => ({
        containers: [{ name: "server", image: absent, ...more }],
      });
      const variable = (...environment: NonNullable<ContainerInit["environment"]>) => container({ environment });
      const registry = (more: AgentSubject["registry"]): SpecInit => ({
        imageRegistries: [{ server: "registry.test", ...more }],
      });
      it.each<[string, SpecInit]>([
        ["name", { name: "Web_1" }],
        ["name", { name: "a".repeat(64) }],
        ["containers", { containers: [] }],
        ["containers", { containers: Array.from({ length: 61 }, (_, i) => ({ name: `c${i}`, image: absent })) }],
        ["containers[0].name", container({ name: "-" })],
        ["containers[1].name", { containers: [1, 2].map(() => ({ name: "server", image: absent })) }],
        ["containers[0].image", container({ image: "registry.test/team/app:latest" })],
        ["containers[0].image", container({ image: `team/Upper@sha256:${"0".repeat(64)}` })],
        ["containers[0].channel", container({ channel: "Stable!" })],
        ["containers[0].command[1]", container({ command: ["/a", "b\0c"] })],
        ["containers[0].workingDirectory", container({ workingDirectory: "srv" })],
        ["containers[0].environment[0].name", variable({ name: "A=B" })],
        ["containers[0].environment[1].name", variable({ name: "A" }, { name: "A" })],
        ["containers[0].environment[0].value", variable({ name: "A", secure: true, value: "canary" })],
        ["containers[0].environment[0].secureValue", variable({ name: "A", secureValue: "canary" })],
        ["containers[0].environment[0]", variable({ name: "A", secure: true, secureValue: "canary\0" })],
        ["containers[0].resources.cpuRequest", container({ resources: { cpuRequest: 0.001, cpuLimit: 1 } })],
        ["containers[0].resources.cpuLimit", container({ resources: { cpuRequest: 1, cpuLimit: 0.5 } })],
        ["containers[0].resources.memoryLimitBytes", container({ resources: { memoryLimitBytes: 1n } })],
        [
          "containers[1].ports[0].port",
          { containers: ["a", "b"].map((name) => ({ name, image: absent, ports: [{ port: 80 }] })) },
        ],
        ["ports[0].port", { ports: [{ port: 70_000 }] }],
        ["ports[1].port", { ports: [{ port: 80 }, { port: 80, protocol: Protocol.TCP }] }],
        ["imageRegistries[0].server", registry({ server: "https://registry.test" })],
        ["imageRegistries[0].endpoint", registry({ endpoint: "http://registry.test" })],
        ["imageRegistries[0].username", registry({ password: "canary" })],
        ["imageRegistries[0].ca", registry({ ca: "canary" })],
        ["imageRegistries[1].server", { imageRegistries: [1, 2].map(() => ({ server: "registry.test" })) }],
      ])("is refused by its field: %s", async (field, wrong) => {
        const failure = await failureOf(client.applyGroup(groupOf("wrong", {}, wrong)));
        expect(failure).toMatchObject({ name: "InvalidFieldsError", violations: [{ path: field }] });
        expect(failure.message).toContain(`${field}: `);
        expect(failure.message).not.toContain("canary");
      });

      it("is refused with all that is wrong with it at once", async () => {
        const wrong = groupOf("wrong", { channel: "!", workingDirectory: "srv" }, { ports: [{ port: 0 }] });
        const { violations } = (await failureOf(client.applyGroup(wrong))) as Error & {
          violations: { path: string }[];
        };
        const paths = violations.map(({ path: at }) => at).sort();
        expect(paths).toEqual(["containers[0].channel", "containers[0].workingDirectory", "ports[0].port"]);
      });

      it("whose program ends again and again waits longer each time, and keeps its output", async () => {
        await client.applyGroup(groupOf("crash", { command: ["/crash"] }));
        const group = await until(client, "crash", (seen) => only(seen).reason === "CrashLoopBackOff");
        expect(group.status!.phase).toBe(GroupPhase.RUNNING);
        expect(only(group)).toMatchObject({ phase: ContainerPhase.WAITING, exitCode: 1 });
        expect(only(group).restartCount).toBeGreaterThanOrEqual(1);
        expect(await client.getLogs("crash", "server", 1)).toBe("cannot open configuration\n");
        expect(await client.getLogs("crash", "server", 0)).toContain("starting\ncannot open configuration\n");
        const failure = await failureOf(client.getLogs("crash", "absent", 1));
        expect([failure.name, failure.message]).toEqual([
          "Error",
          expect.stringContaining('has no container "absent"'),
        ]);
        await client.deleteGroup("crash");
      });

      it.each([
        [RestartPolicy.NEVER, "/done", GroupPhase.SUCCEEDED, { exitCode: 0, reason: "Completed" }],
        [RestartPolicy.ON_FAILURE, "/done", GroupPhase.SUCCEEDED, { exitCode: 0, reason: "Completed" }],
        [RestartPolicy.NEVER, "/crash", GroupPhase.FAILED, { exitCode: 1, reason: "Error" }],
      ])("of restart policy %s stays ended after %s", async (restartPolicy, program, phase, end) => {
        await client.applyGroup(groupOf("job", { command: [program] }, { restartPolicy }));
        const group = await until(client, "job", ({ status }) => status?.phase === phase);
        expect(only(group)).toMatchObject({ phase: ContainerPhase.TERMINATED, restartCount: 0, ...end });
        await client.deleteGroup("job");
      });

      it("is no longer reported when the watcher leaves", async () => {
        const watching = new AbortController();
        const reports = client.watchGroup("web", watching.signal)[Symbol.asyncIterator]();
        await reports.next();
        const reason = new Error("seen enough");
        watching.abort(reason);
        const ended = async () => {
          for (;;) if ((await reports.next()).done) return;
        };
        expect(await failureOf(ended())).toBe(reason);
      });

      it("frees its resources and ports when it is deleted, and its watchers are told", async () => {
        let hear = () => {};
        const heard = new Promise<void>((resolve) => (hear = resolve));
        const gone = failureOf(until(client, "web", () => Boolean(hear())));
        await heard;
        await client.deleteGroup("web");
        expect((await gone).message).toContain('group "web" was deleted');
        expect(await client.getGroup("web")).toBeUndefined();
        const heir = await client.applyGroup(groupOf("heir", {}, { ports: [{ port: 80 }] }));
        expect(heir.generation).toBe(1n);
        await client.deleteGroup("heir");
        await client.deleteGroup("heir");
      });

      it("is left unreconciled for an hour at most", async () => {
        await client.suspendReconcile(0);
        const failure = await failureOf(client.suspendReconcile(3601));
        expect([failure.name, failure.message]).toEqual(["Error", expect.stringContaining("duration: ")]);
      });
    });

    describe("an image policy", () => {
      const policyOf = (more: MessageInitShape<typeof ImagePolicySchema> = {}) =>
        create(ImagePolicySchema, {
          name: "signed",
          repositories: ["r.example/b", "r.example/a/*"],
          ...more,
        });
      const repository = () => subject.images[0].split("@")[0]!;

      it("that is not there is undefined, and deleted without harm", async () => {
        expect(await client.getImagePolicy("signed")).toBeUndefined();
        await client.deleteImagePolicy("signed");
      });

      it("is only tried out by a dry run", async () => {
        expect((await client.applyImagePolicy(policyOf(), true)).policy?.generation).toBe(1n);
        expect(await client.getImagePolicy("signed")).toBeUndefined();
      });

      it("is the same in any order, and another one with other repositories", async () => {
        const orders = [
          ["r.example/b", "r.example/a/*"],
          ["r.example/a/*", "r.example/b", "r.example/b"],
        ];
        for (const repositories of orders) {
          expect((await client.applyImagePolicy(policyOf({ repositories }))).policy).toMatchObject({
            repositories: ["r.example/a/*", "r.example/b"],
            generation: 1n,
          });
        }
        expect(
          (await client.applyImagePolicy(policyOf({ repositories: ["r.example/*"] }), true)).policy?.generation,
        ).toBe(2n);
        expect((await client.getImagePolicy("signed"))?.generation).toBe(1n);
        expect((await client.applyImagePolicy(policyOf({ repositories: ["r.example/*"] }))).policy?.generation).toBe(
          2n,
        );
        expect(await client.getImagePolicy("signed")).toMatchObject({ repositories: ["r.example/*"], generation: 2n });
      });

      it.each<[string, MessageInitShape<typeof ImagePolicySchema>]>([
        ["name", { name: "Signed" }],
        ["repositories", { repositories: [] }],
        ["repositories[0]", { repositories: ["https://r.example/app"] }],
        ["repositories[0]", { repositories: ["*"] }],
        ["keys[0]", { keys: ["canary"] }],
        ["keys[0]", { keys: ["-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n"] }],
      ])("is refused by its field: %s", async (field, wrong) => {
        const failure = await failureOf(client.applyImagePolicy(policyOf(wrong)));
        expect(failure).toMatchObject({ name: "InvalidFieldsError", violations: [{ path: field }] });
        expect(failure.message).not.toContain("canary");
      });

      it("refuses the images that none names, of groups that are declared from then on", async () => {
        const refused = groupOf("refused", { image: subject.images[1] });
        const failed = (group: Group) => only(group).reason === "ImageRefused";
        await client.applyGroup(refused);
        const group = await until(client, "refused", failed);
        expect(only(group)).toMatchObject({ phase: ContainerPhase.WAITING, containerId: "" });
        expect(only(group).message).toContain(subject.images[1]);
        expect(group.status!.observedGeneration).toBe(0n);
        expect(await client.getLogs("refused", "server", 0)).toBe("");
        // Once a policy names the repository, the same declaration is tried anew; the server's name is the same in
        // either case.
        const [server, ...rest] = repository().split("/");
        const name = [server!.toUpperCase(), ...rest].join("/");
        await client.applyImagePolicy(policyOf({ name: "team", repositories: [name] }));
        expect((await client.applyGroup(refused)).generation).toBe(1n);
        await until(client, "refused", isRunning);
      });

      it("names the running images that would not start again", async () => {
        const elsewhere = policyOf({ name: "team", repositories: ["r.example/*"] });
        for (const dryRun of [true, false]) {
          const { refusedImages } = await client.applyImagePolicy(elsewhere, dryRun);
          expect(refusedImages.map(({ reference }) => reference)).toContain(subject.images[1]);
          for (const { reason, message } of refusedImages) {
            expect(reason).toBe("ImageNotAllowed");
            expect(message).toContain("no image policy of this host names");
          }
          const allowed = policyOf({ name: "all", repositories: [`${repository().split("/")[0]}/*`] });
          expect((await client.applyImagePolicy(allowed, true)).refusedImages).toEqual([]);
        }
        // What runs goes on running.
        expect(isRunning(await client.applyGroup(groupOf("refused", { image: subject.images[1] })))).toBe(true);
      });

      it("is gone when it is deleted, twice without harm", async () => {
        for (const name of ["signed", "team", "team"]) await client.deleteImagePolicy(name);
        expect(await client.getImagePolicy("signed")).toBeUndefined();
        expect((await client.applyGroup(groupOf("free", { image: subject.images[0] }))).generation).toBe(1n);
        await until(client, "free", isRunning);
        for (const name of ["free", "refused"]) await client.deleteGroup(name);
      });
    });

    describe("the network policy", () => {
      const compile = (port: number) =>
        compileNetworkPolicies({
          endpoints: [{ name: "web", labels: { app: "web" } }],
          networkPolicies: [
            {
              name: "web",
              groupSelector: { matchLabels: { app: "web" } },
              ingress: [{ ports: [{ port, protocol: "TCP" }] }],
            },
          ],
        });
      const apply = (policy: ReturnType<typeof compile>, dryRun = false, hash = policy.hash) =>
        client.applyNetworkPolicy(JSON.stringify(policy), hash, dryRun);

      it("that is not there is undefined, and withdrawn without harm", async (test) => {
        test.skip(!subject.hasNetwork, "the datapath of a real host needs root");
        await client.deleteNetworkPolicy();
        expect(await client.getNetworkPolicy()).toBeUndefined();
        expect(await client.getNetwork()).toMatchObject({ policyDeclared: false, problems: [] });
      });

      it("is only tried out by a dry run", async (test) => {
        test.skip(!subject.hasNetwork, "the datapath of a real host needs root");
        const policy = compile(80);
        expect((await apply(policy, true)).policyHash).toBe(policy.hash);
        expect(await client.getNetworkPolicy()).toBeUndefined();
      });

      it("that is not what was compiled, or not what was meant, is refused", async (test) => {
        test.skip(!subject.hasNetwork, "the datapath of a real host needs root");
        const policy = compile(80);
        const changed = { ...policy, endpoints: [{ ...policy.endpoints[0]!, name: "default/other" }] };
        for (const [attempt, message] of [
          [() => apply(changed), /policy\.hash: /],
          [() => apply(policy, false, compile(81).hash), /expected_hash: /],
        ] as const) {
          const failure = await failureOf(attempt());
          expect([failure.name, failure.message]).toEqual(["Error", expect.stringMatching(message)]);
        }
        expect(await client.getNetworkPolicy()).toBeUndefined();
      });

      it("is in force once it is applied, the same when it is applied again, and replaced by another", async (test) => {
        test.skip(!subject.hasNetwork, "the datapath of a real host needs root");
        for (const policy of [compile(80), compile(80), compile(81)]) {
          expect((await apply(policy)).policyHash).toBe(policy.hash);
          expect(await client.getNetworkPolicy()).toBe(JSON.stringify(policy));
          expect(await client.getNetwork()).toMatchObject({
            policyDeclared: true,
            policyHash: policy.hash,
            problems: [],
          });
        }
        expect(await client.repairNetwork()).toEqual([]);
      });

      it("is gone when it is withdrawn, twice without harm", async (test) => {
        test.skip(!subject.hasNetwork, "the datapath of a real host needs root");
        for (let time = 0; time < 2; time++) {
          await client.deleteNetworkPolicy();
          expect(await client.getNetworkPolicy()).toBeUndefined();
        }
        expect((await client.getNetwork()).policyDeclared).toBe(false);
      });
    });
  });
}

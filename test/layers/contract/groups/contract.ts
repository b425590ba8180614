/**
 * The contract of the shared arguments: one table, every backend. What a backend cannot honour it refuses with the
 * field's path.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ArgumentError } from "../../../../components/index.js";
import type { GroupArgs } from "../../../../components/group/model.js";
import { digest } from "../../../../components/internal/testing/answers.js";
import { record } from "../../../../components/internal/testing/recorder.js";
import type { GroupBackend, TakenGroup } from "./backend.js";

const image = `registry.example/web@${digest}`;
const resources = { requests: { cpu: 0.5, memoryInGB: 0.25 } };
const web = { name: "web", image, resources, ports: [{ port: 8080 }] };
const amounts = { cpu: 0.5, memory: 2 ** 28 };
const takenWeb = {
  name: "web",
  image,
  command: [],
  environment: {},
  mounts: {},
  ports: ["8080/TCP"],
  requests: amounts,
  limits: amounts,
};
const taken: TakenGroup = {
  name: "group",
  restartPolicy: "Always",
  containers: [takenWeb],
  initContainers: [],
  volumes: {},
  published: [],
  registries: {},
};

interface Case {
  what: string;
  args: GroupArgs;
  /** What differs from `taken`. */
  expected: Partial<TakenGroup>;
  /** Fields that some backends refuse. */
  needs?: string[];
}

export const cases: Case[] = [
  { what: "one container that nobody reaches", args: { containers: [web] }, expected: {} },
  {
    what: "a name of its own",
    args: { containers: [web], containerGroupName: "other" },
    expected: { name: "other" },
  },
  {
    what: "two containers, published ports of both protocols",
    args: {
      containers: [web, { ...web, name: "dns", ports: [{ port: 8053, protocol: "UDP" }] }],
      ipAddress: { type: "Public", ports: [{ port: 8080 }, { port: 8053, protocol: "UDP" }] },
    },
    expected: {
      containers: [takenWeb, { ...takenWeb, name: "dns", ports: ["8053/UDP"] }],
      published: ["8080/TCP", "8053/UDP"],
    },
  },
  {
    what: "a command and an environment, in clear and secure",
    args: {
      containers: [
        {
          ...web,
          command: ["/web", "--price=$5", "$(MODE)"],
          environmentVariables: [
            { name: "MODE", value: "production" },
            { name: "LITERAL", value: "$(MODE) $$(MODE) $" },
            { name: "EMPTY", value: "" },
            { name: "TOKEN", secureValue: "a secret: ü $(MODE)" },
          ],
        },
      ],
    },
    expected: {
      containers: [
        {
          ...takenWeb,
          command: ["/web", "--price=$5", "$(MODE)"],
          environment: { MODE: "production", LITERAL: "$(MODE) $$(MODE) $", EMPTY: "", TOKEN: "a secret: ü $(MODE)" },
        },
      ],
    },
  },
  {
    what: "limits above requests, one of them left out",
    args: { containers: [{ ...web, resources: { ...resources, limits: { cpu: 1.25 } } }] },
    expected: { containers: [{ ...takenWeb, limits: { cpu: 1.25, memory: 2 ** 28 } }] },
  },
  ...["OnFailure", "Never"].map((restartPolicy) => ({
    what: `restart policy ${restartPolicy}`,
    args: { containers: [web], restartPolicy },
    expected: { restartPolicy },
  })),
  {
    what: "credentials of two registries",
    args: {
      containers: [web],
      imageRegistryCredentials: [
        { server: "registry.example", username: "shop", password: "pass:word" },
        { server: "other.example:5000", username: "a", password: "b" },
      ],
    },
    expected: { registries: { "registry.example": "shop:pass:word", "other.example:5000": "a:b" } },
  },
  {
    what: "an empty and a secret volume",
    args: {
      containers: [
        {
          ...web,
          volumeMounts: [
            { name: "scratch", mountPath: "/scratch" },
            { name: "letter", mountPath: "/letter", readOnly: true },
          ],
        },
      ],
      volumes: [
        { name: "scratch", emptyDir: {} },
        { name: "letter", secret: { "note.txt": Buffer.from("a letter").toString("base64") } },
      ],
    },
    expected: {
      containers: [{ ...takenWeb, mounts: { "/scratch": "scratch", "/letter": "letter:ro" } }],
      volumes: { scratch: "empty", letter: { "note.txt": "a letter" } },
    },
    needs: ["volumes", "containers[0].volumeMounts"],
  },
  {
    what: "probes by command and over HTTP",
    args: {
      containers: [
        {
          ...web,
          livenessProbe: { exec: { command: ["/alive", "now"] }, periodSeconds: 7 },
          readinessProbe: { httpGet: { port: 8080, path: "/ready", scheme: "http" }, periodSeconds: 8 },
        },
      ],
    },
    expected: {
      containers: [
        {
          ...takenWeb,
          liveness: { how: "/alive now", periodSeconds: 7 },
          readiness: { how: "GET http :8080/ready", periodSeconds: 8 },
        },
      ],
    },
    needs: ["containers[0].livenessProbe", "containers[0].readinessProbe"],
  },
  {
    what: "an init container",
    args: { containers: [web], initContainers: [{ name: "prepare", image, command: ["/prepare"] }] },
    expected: {
      initContainers: [{ name: "prepare", image, command: ["/prepare"], environment: {}, mounts: {} }],
    },
    needs: ["initContainers"],
  },
  {
    what: "a user that is not root",
    args: { containers: [{ ...web, securityContext: { runAsUser: 1000 } }] },
    expected: { containers: [{ ...takenWeb, runAsUser: 1000 }] },
    needs: ["containers[0].securityContext"],
  },
];

/** Refused everywhere, in the same words. */
const wrong: [string, object][] = [
  ["containers: is required", { containers: undefined }],
  ["containers[0].image = ", { containers: [{ ...web, image: "registry.example/web:latest" }] }],
  ['containers[1].name = "web": is the name of containers[0] already', { containers: [web, { ...web, ports: [] }] }],
  ['containers[1].ports[0].port = "8080/TCP": is taken by', { containers: [web, { ...web, name: "b" }] }],
  [
    "containers[0].resources.limits.cpu = 0.1: must be at least the request, 0.5",
    { containers: [{ ...web, resources: { ...resources, limits: { cpu: 0.1 } } }] },
  ],
  [
    "containers[0].environmentVariables[0]: needs exactly one of value and secureValue",
    { containers: [{ ...web, environmentVariables: [{ name: "A", value: "", secureValue: "canary" }] }] },
  ],
  [
    'ipAddress.ports[0].port = "81/TCP": no container listens on it',
    { containers: [web], ipAddress: { type: "Public", ports: [{ port: 81 }] } },
  ],
  ["restartPolice: no such argument", { containers: [web], restartPolice: "Always" }],
  [
    'restartPolicy = "Sometimes": must be Always or OnFailure or Never',
    { containers: [web], restartPolicy: "Sometimes" },
  ],
];

export function groupContract(backend: GroupBackend): void {
  describe(`groups: ${backend.name}`, () => {
    beforeAll(() => backend.start());
    afterAll(() => backend.stop());

    it.each(cases)("takes $what, or refuses it by name", async ({ args, expected, needs = [] }) => {
      const refused = needs.filter((field) => backend.refused.includes(field));
      if (refused.length === 0) {
        expect(await backend.take("group", args)).toEqual({ ...taken, ...expected });
        return;
      }
      await record({ answer: () => ({}) });
      const problems = problemsOf(() => backend.declare("group", args));
      expect(problems.sort()).toEqual(refused.sort());
    });

    it.each(wrong)("refuses %s", async (message, args) => {
      await record({ answer: () => ({}) });
      const declare = () => backend.declare("group", args as GroupArgs);
      expect(declare).toThrow(message);
      expect(declare).not.toThrow("canary");
    });
  });
}

function problemsOf(declare: () => void): string[] {
  try {
    declare();
  } catch (error) {
    if (error instanceof ArgumentError) return error.problems.map(({ path }) => path);
    throw error;
  }
  return [];
}

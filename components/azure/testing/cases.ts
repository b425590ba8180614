/** Arguments of groups on Azure: all there are, and those that are refused. */
import { digest } from "../../internal/testing/answers.js";
import type { ContainerGroupArgs } from "../container-group.js";

export const container = {
  name: "web",
  image: `registry.example/web@${digest}`,
  ports: [{ port: 80 }],
  resources: { requests: { cpu: 0.5, memoryInGB: 0.25 } },
};
export const minimal = {
  resourceGroupName: "shops",
  containers: [container],
  ipAddress: { type: "Public", ports: [{ port: 80 }] },
} satisfies ContainerGroupArgs;

/** Every argument that ACI takes, each with a value that would be missed. */
export const everything = {
  resourceGroupName: "shops",
  containerGroupName: "shop",
  location: "westeurope",
  zones: ["1"],
  tags: { team: "shop" },
  identity: { type: "SystemAssigned, UserAssigned", userAssignedIdentities: ["/subscriptions/0/identity"] },
  sku: "Confidential",
  priority: "Regular",
  osType: "Linux",
  restartPolicy: "OnFailure",
  confidentialComputeProperties: { ccePolicy: "cG9saWN5" },
  subnetIds: [{ id: "/subscriptions/0/subnets/a", name: "a" }],
  dnsConfig: { nameServers: ["192.0.2.53"], searchDomains: "example", options: "ndots:2" },
  encryptionProperties: { vaultBaseUrl: "https://vault.example", keyName: "k", keyVersion: "1", identity: "/id" },
  diagnostics: {
    logAnalytics: {
      workspaceId: "w",
      workspaceKey: "canary-workspace",
      logType: "ContainerInsights",
      metadata: { "node-name": "a" },
      workspaceResourceId: "/subscriptions/0/workspace",
    },
  },
  extensions: [
    {
      name: "kube-proxy",
      extensionType: "kube-proxy",
      version: "1.0",
      settings: { clusterCidr: "10.240.0.0/16" },
      protectedSettings: { kubeConfig: "canary-extension" },
    },
  ],
  ipAddress: { type: "Private", ip: "10.0.0.4", ports: [{ port: 8080, protocol: "TCP" }] },
  imageRegistryCredentials: [
    { server: "registry.example", username: "shop", password: "canary-password" },
    { server: "shop.azurecr.io", identity: "/subscriptions/0/identity", identityUrl: "https://identity.example" },
  ],
  volumes: [
    { name: "scratch", emptyDir: {} },
    { name: "letter", secret: { "note.txt": "Y2FuYXJ5LXZvbHVtZQ==" } },
    { name: "source", gitRepo: { repository: "https://git.example/shop", directory: ".", revision: "main" } },
    {
      name: "share",
      azureFile: { shareName: "s", storageAccountName: "a", storageAccountKey: "canary-storage", readOnly: true },
    },
  ],
  initContainers: [
    {
      name: "prepare",
      image: `registry.example/prepare@${digest}`,
      command: ["/prepare"],
      environmentVariables: [{ name: "STEP", value: "1" }],
      volumeMounts: [{ name: "scratch", mountPath: "/scratch", readOnly: false }],
      securityContext: { runAsUser: 1000 },
    },
  ],
  containers: [
    {
      name: "web",
      image: `registry.example/web@${digest}`,
      command: ["/web", "--port=8080"],
      ports: [{ port: 8080, protocol: "TCP" }],
      environmentVariables: [
        { name: "MODE", value: "production" },
        { name: "TOKEN", secureValue: "canary-token" },
      ],
      resources: { requests: { cpu: 1, memoryInGB: 1.5 }, limits: { cpu: 2, memoryInGB: 3 } },
      volumeMounts: [{ name: "letter", mountPath: "/letter", readOnly: true }],
      livenessProbe: {
        exec: { command: ["/alive"] },
        initialDelaySeconds: 1,
        periodSeconds: 2,
        timeoutSeconds: 3,
        failureThreshold: 4,
        successThreshold: 1,
      },
      readinessProbe: {
        httpGet: { port: 8080, path: "/ready", scheme: "http", httpHeaders: [{ name: "Host", value: "shop" }] },
      },
      securityContext: {
        privileged: false,
        allowPrivilegeEscalation: false,
        capabilities: { add: ["NET_BIND_SERVICE"], drop: ["ALL"] },
        runAsGroup: 1000,
        runAsUser: 1000,
        seccompProfile: "e30=",
      },
    },
  ],
} satisfies ContainerGroupArgs;

const withContainer = (change: object) => ({ containers: [{ ...container, ...change }] });
const requesting = (cpu: number, memoryInGB: number) => withContainer({ resources: { requests: { cpu, memoryInGB } } });
const spot = { priority: "Spot", ipAddress: undefined };

/** What a message says, and what is added to `minimal`: ACI's own limits first of all. */
export const refusals: [string, object][] = [
  ["resourceGroupName: is required", { resourceGroupName: undefined }],
  ["host: belongs to groups on hosts", { host: {} }],
  ["standbyPoolProfile: is part of ACI's preview API only", { standbyPoolProfile: { id: "x" } }],
  ["containerGroupProfile: is part of ACI's preview API only", { containerGroupProfile: { id: "x" } }],
  ["containers[0].configMap: is part of ACI's preview API only", withContainer({ configMap: {} })],
  ["containers: ACI runs 1 to 60 containers", { containers: Array.from({ length: 61 }, () => container) }],
  ["volumes = 21: ACI mounts at most 20 volumes", { volumes: Array.from({ length: 21 }, () => ({})) }],
  ['volumes[0].name = "a": ACI takes 5 to 63', { volumes: [{ name: "a", emptyDir: {} }] }],
  ["volumes[0]: needs exactly one of", { volumes: [{ name: "scratch", emptyDir: {}, secret: {} }] }],
  [
    'volumeMounts[0].name = "absent": no volume',
    withContainer({ volumeMounts: [{ name: "absent", mountPath: "/a" }] }),
  ],
  [
    "ipAddress.ports = 6: ACI opens at most 5 ports",
    { ipAddress: { type: "Public", ports: [1, 2, 3, 4, 5, 6].map((port) => ({ port })) } },
  ],
  ["containers[0].ports[0].port = 22: ACI keeps port 22", withContainer({ ports: [{ port: 22 }] })],
  ["containers[0].ports[0].port = 25000: ACI keeps ports 20000 to 30000", withContainer({ ports: [{ port: 25000 }] })],
  ["containers = 32: together they request more cores than ACI gives a Standard group: 31", requesting(32, 1)],
  ["containers = 241: together they request more GB than ACI gives a Standard group: 240", requesting(1, 241)],
  [
    "containers = 181: together they request more GB than ACI gives a Confidential group: 180",
    { ...requesting(1, 181), sku: "Confidential" },
  ],
  ["containers = 5: together they request more cores than ACI gives a Spot group: 4", { ...spot, ...requesting(5, 1) }],
  ["ipAddress: ACI's Spot groups have no address", { priority: "Spot" }],
  ["subnetIds: ACI's Spot groups have no virtual network", { ...spot, subnetIds: [{ id: "x" }] }],
  ["zones: ACI's Spot groups have no zone", { ...spot, zones: ["1"] }],
  ['sku = "Confidential": ACI\'s Spot groups have no SKU but Standard', { ...spot, sku: "Confidential" }],
  ['ipAddress.type = "Public": ACI has no public addresses', { subnetIds: [{ id: "x" }] }],
  [
    'ipAddress.type = "Private": ACI gives private addresses',
    { ipAddress: { type: "Private", ports: [{ port: 80 }] } },
  ],
  [
    "containers = 2: ACI runs one container in a Windows group",
    { osType: "Windows", containers: [container, { ...container, name: "b", ports: [] }] },
  ],
  ["gpu: ACI's GPUs were retired", withContainer({ resources: { requests: { cpu: 1, memoryInGB: 1, gpu: {} } } })],
  [
    "containers[0].image.channel: ACI changes an image by an update of the whole group only",
    withContainer({ image: { repository: "registry.example/web", channel: "stable" } }),
  ],
  ['containers[0].image = "10.0.0.7:5000/web@', withContainer({ image: { repository: "10.0.0.7:5000/web", digest } })],
  ['containers[0].image = "10.0.0.7:5000/web@', withContainer({ image: `10.0.0.7:5000/web@${digest}` })],
  [
    "imageRegistryCredentials[0]: ACI needs username and password, or identity",
    { imageRegistryCredentials: [{ server: "registry.example" }] },
  ],
  [
    "imageRegistryCredentials[0].ca: ACI trusts public certificate authorities only",
    { imageRegistryCredentials: [{ server: "registry.example", username: "a", password: "canary", ca: "x" }] },
  ],
  [
    'environmentVariables[0].name = "_A": ACI takes',
    withContainer({ environmentVariables: [{ name: "_A", value: "" }] }),
  ],
  ["livenessProbe: needs exactly one of exec and httpGet", withContainer({ livenessProbe: {} })],
];

/** The Kubernetes pod of a group, by pure functions of arguments whose parts may become known later. */
import * as pulumi from "@pulumi/pulumi";
import type { core } from "@pulumi/kubernetes/types/input";
import { given, isGiven, known } from "../internal/arguments.js";
import { imageReference } from "../group/images.js";
import { lift, mapItems, withDefault } from "../group/inputs.js";
import type * as model from "../group/model.js";
import type { ContainerGroupArgs } from "./container-group.js";

/** Names of the Secrets that a pod takes values from. */
export interface SecretNames {
  /** Secure values of environment variables and files of secret volumes; see `secretData`. */
  values: pulumi.Input<string> | undefined;
  /** Credentials of registries. */
  registries: pulumi.Input<string> | undefined;
}

/** Key of a secure value in the Secret with all of them. */
export const valueKey = (container: string, variable: string) => `environment.${container}.${variable}`;
/** Key of a secret volume's file. */
export const fileKey = (volume: string, file: string) => `volume.${volume}.${file}`;

/** The pod; its settings satisfy the Pod Security Standard `restricted`. */
export function podSpec(args: ContainerGroupArgs, secrets: SecretNames): core.v1.PodSpec {
  return {
    // A group on a host has no cluster to talk to either.
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    containers: mapItems(args.containers, (container) => toContainer(container, secrets)),
    imagePullSecrets: secrets.registries === undefined ? undefined : [{ name: secrets.registries }],
    initContainers: mapItems(args.initContainers, (container) => toProgram(container, secrets)),
    nodeSelector: { "kubernetes.io/os": "linux" },
    restartPolicy: withDefault(args.restartPolicy, "Always"),
    runtimeClassName: args.runtimeClassName,
    securityContext: {
      runAsNonRoot: true,
      seccompProfile: { type: "RuntimeDefault" },
      // Who is not root may listen on port 80: the port belongs to the pod alone.
      sysctls: [{ name: "net.ipv4.ip_unprivileged_port_start", value: "0" }],
    },
    volumes: mapItems(args.volumes, (volume) => toVolume(volume, secrets)),
  };
}

function toContainer(container: model.ContainerArgs, secrets: SecretNames): core.v1.Container {
  return {
    ...toProgram(container, secrets),
    livenessProbe: container.livenessProbe && lift(container.livenessProbe, toProbe),
    ports: mapItems(container.ports, ({ port, protocol }) => ({
      containerPort: port,
      protocol: withDefault(protocol, "TCP"),
    })),
    readinessProbe: container.readinessProbe && lift(container.readinessProbe, toProbe),
    resources: lift(container.resources, ({ requests, limits }) => ({
      requests: lift(requests, quantities),
      // A limit that turns out not to be given is the request: without one a container may take the whole node.
      limits: pulumi
        .output({ requests, limits })
        .apply((known) => quantities({ ...known.requests, ...given(known.limits) })),
    })),
  };
}

function toProgram(container: model.InitContainerArgs, secrets: SecretNames): core.v1.Container {
  return {
    command: mapItems(container.command, literal),
    env: mapItems(container.environmentVariables, (variable) => toVariable(container, variable, secrets)),
    image: imageReference(container.image),
    name: container.name,
    securityContext: lift(container.securityContext ?? {}, (context) => ({
      allowPrivilegeEscalation: false,
      capabilities: {
        add: context?.capabilities && lift(context.capabilities, (capabilities) => withDefault(capabilities?.add, [])),
        drop: ["ALL"],
      },
      runAsGroup: context?.runAsGroup,
      runAsUser: context?.runAsUser,
    })) as pulumi.Input<core.v1.SecurityContext>,
    volumeMounts: mapItems(container.volumeMounts, ({ mountPath, name, readOnly }) => ({
      mountPath,
      name,
      readOnly: withDefault(readOnly, false),
    })),
  };
}

/**
 * Whether a value is one of the Secret is decided when it is known, where both are given and one of them may come to
 * nothing.
 */
function toVariable(
  container: model.InitContainerArgs,
  { name, value, secureValue }: model.EnvironmentVariableArgs,
  secrets: SecretNames,
): pulumi.Input<core.v1.EnvVar> {
  const plain = { name, value: lift(value as pulumi.Input<string>, literal) };
  const key = pulumi.all([container.name, name]).apply(([owner, variable]) => valueKey(owner, variable));
  const secret = { name, valueFrom: { secretKeyRef: { key, name: secrets.values! } } };
  if (!isGiven(secureValue)) return plain;
  return isGiven(value) ? lift(secureValue, (found): core.v1.EnvVar => (isGiven(found) ? secret : plain)) : secret;
}

function toProbe(probe: model.ContainerProbeArgs | undefined): core.v1.Probe {
  const { exec, httpGet, ...times } = probe ?? {};
  return {
    ...times,
    exec,
    httpGet:
      httpGet &&
      lift(
        httpGet,
        (get) =>
          get && {
            httpHeaders: get.httpHeaders,
            path: withDefault(get.path, "/"),
            port: get.port,
            scheme: lift(withDefault(get.scheme, "http"), (scheme) => scheme.toUpperCase()),
          },
      ),
  } as core.v1.Probe;
}

/** Kubernetes replaces $(NAME) by the variable's value. No other backend does, so the text is escaped. */
const literal = (text: string | undefined): string => (text ?? "").replaceAll("$", "$$$$");

/** ACI's GB are GiB, and its steps of 0.01 are tens of millicores. */
function quantities(amounts: {
  cpu?: pulumi.Input<number | undefined>;
  memoryInGB?: pulumi.Input<number | undefined>;
}): Record<string, pulumi.Input<string>> {
  const { cpu, memoryInGB } = amounts;
  return {
    ...(cpu === undefined ? {} : { cpu: lift(cpu, (cores) => `${Math.round(cores! * 1000)}m`) }),
    ...(memoryInGB === undefined
      ? {}
      : { memory: lift(memoryInGB, (gibibytes) => String(Math.round(gibibytes! * 2 ** 30))) }),
  };
}

function toVolume(volume: model.VolumeArgs, secrets: SecretNames): pulumi.Input<core.v1.Volume> {
  const emptyDir = { name: volume.name, emptyDir: {} };
  if (!isGiven(volume.secret)) return emptyDir;
  // Not without files: Kubernetes takes an empty list for every key, and they hold the values of others.
  const items = pulumi
    .all([volume.name, volume.secret])
    .apply(([name, files]) => Object.keys(files ?? {}).map((file) => ({ key: fileKey(name, file), path: file })));
  const secret = { name: volume.name, secret: { items, secretName: secrets.values } };
  return isGiven(volume.emptyDir)
    ? lift(volume.secret, (files): core.v1.Volume => (isGiven(files) ? secret : emptyDir))
    : secret;
}

/** False only when it is known that there is nothing to keep in a Secret. */
export function mayHoldSecrets(args: ContainerGroupArgs): boolean {
  const some = <T>(list: model.OptionalList<T> | undefined, test: (item: T) => boolean): boolean =>
    isGiven(list) &&
    (known(list)?.some((input) => {
      const item = known(input);
      return item === undefined || test(item);
    }) ??
      true);
  const secure = (container: model.InitContainerArgs) =>
    some(container.environmentVariables, ({ secureValue }) => isGiven(secureValue));
  return (
    some(args.containers, secure) ||
    some(args.initContainers, secure) ||
    some(args.volumes, ({ secret }) => isGiven(secret))
  );
}

/** Secure values and files of secret volumes, as `data` of a Secret: all of it in base64. Empty when there are none. */
export function secretData(args: ContainerGroupArgs): pulumi.Output<Record<string, string>> {
  const environment = ({ name, environmentVariables }: model.InitContainerArgs) => ({ name, environmentVariables });
  return pulumi
    .output({
      containers: mapItems(args.containers, environment),
      initContainers: mapItems(args.initContainers, environment),
      volumes: args.volumes,
    })
    .apply(({ containers, initContainers, volumes }) => {
      const data: Record<string, string> = {};
      for (const { name, environmentVariables } of [...containers, ...(initContainers ?? [])]) {
        for (const variable of environmentVariables ?? []) {
          if (!isGiven(variable.secureValue)) continue;
          data[valueKey(name, variable.name)] = Buffer.from(variable.secureValue).toString("base64");
        }
      }
      for (const { name, secret } of volumes ?? []) {
        for (const [file, content] of Object.entries(secret ?? {})) data[fileKey(name, file)] = content;
      }
      return data;
    });
}

/** Credentials in the form of Docker's configuration file. */
export function registryConfiguration(
  credentials: model.OptionalList<model.ImageRegistryCredentialArgs>,
): pulumi.Output<string> {
  return pulumi.output(credentials).apply((list) =>
    JSON.stringify({
      auths: Object.fromEntries(
        (list ?? []).map(({ server, username, password }) => [
          server,
          { auth: Buffer.from(`${username ?? ""}:${password ?? ""}`).toString("base64") },
        ]),
      ),
    }),
  );
}

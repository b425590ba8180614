/**
 * Names of the arguments in `model.ts`. A backend that takes more, or less, says so beside them in its `GroupRules`.
 */
import type * as inputs from "../../sdk/types/input.js";
import { argumentNames } from "../internal/argument-names.js";
import type * as model from "./model.js";

export const sharedFields = {
  container: argumentNames<model.ContainerArgs>({
    name: true,
    image: true,
    command: true,
    environmentVariables: true,
    ports: true,
    resources: true,
    volumeMounts: true,
    livenessProbe: true,
    readinessProbe: true,
    securityContext: true,
  }),
  initContainer: argumentNames<model.InitContainerArgs>({
    name: true,
    image: true,
    command: true,
    environmentVariables: true,
    volumeMounts: true,
    securityContext: true,
  }),
  /** An image that is given by its parts. */
  image: argumentNames<model.PinnedImageArgs>({ repository: true, digest: true }),
  environmentVariable: argumentNames<model.EnvironmentVariableArgs>({ name: true, value: true, secureValue: true }),
  port: argumentNames<model.PortArgs>({ port: true, protocol: true }),
  resources: argumentNames<model.ResourceRequirementsArgs>({ requests: true, limits: true }),
  /** Requests and limits. */
  amounts: argumentNames<inputs.ResourceRequestsArgs>({ cpu: true, memoryInGB: true }),
  probe: argumentNames<model.ContainerProbeArgs>({
    exec: true,
    httpGet: true,
    initialDelaySeconds: true,
    periodSeconds: true,
    timeoutSeconds: true,
    failureThreshold: true,
    successThreshold: true,
  }),
  credential: argumentNames<model.ImageRegistryCredentialArgs>({ server: true, username: true, password: true }),
  ipAddress: argumentNames<model.IpAddressArgs>({ ports: true, type: true }),
  volume: argumentNames<model.VolumeArgs>({ name: true, emptyDir: true, secret: true }),
  volumeMount: argumentNames<model.VolumeMountArgs>({ mountPath: true, name: true, readOnly: true }),
  securityContext: argumentNames<model.SecurityContextArgs>({
    allowPrivilegeEscalation: true,
    capabilities: true,
    privileged: true,
    runAsGroup: true,
    runAsUser: true,
  }),
};

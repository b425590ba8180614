/** What a backend of container groups has to be for the contract of the shared arguments. */
import type { GroupArgs } from "../../../../components/group/model.js";

/** What a backend was given for a program of the group, in terms that no backend owns. */
export interface TakenProgram {
  name: string;
  image: string;
  command: string[];
  /** With secure values in clear: it is the backend that runs with them. */
  environment: Record<string, string>;
  /** mountPath → volume, with `:ro` behind it when it is read only. */
  mounts: Record<string, string>;
  runAsUser?: number;
}

export interface TakenContainer extends TakenProgram {
  /** e.g. `80/TCP`. */
  ports: string[];
  /** Cores and bytes. */
  requests: { cpu: number; memory: number };
  limits: { cpu: number; memory: number };
  liveness?: TakenProbe;
  readiness?: TakenProbe;
}

export interface TakenProbe {
  /** A command, or e.g. `GET http :80/path`. */
  how: string;
  periodSeconds?: number;
}

export interface TakenGroup {
  name: string;
  restartPolicy: string;
  containers: TakenContainer[];
  initContainers: TakenProgram[];
  /** Volume → its files in clear; `empty` for one that is. */
  volumes: Record<string, Record<string, string> | "empty">;
  /** Ports that are reached from outside; empty when nothing is. */
  published: string[];
  /** server → `username:password`. */
  registries: Record<string, string>;
}

export interface GroupBackend {
  readonly name: string;
  /** Fields of `GroupArgs` and of its containers that this backend refuses in preview, each with the reason. */
  readonly refused: readonly string[];
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Declares the group, as a program does, without giving it to the backend. @throws ArgumentError */
  declare(name: string, args: GroupArgs): void;
  /** Declares a group to the backend; returns what the backend took. */
  take(name: string, args: GroupArgs): Promise<TakenGroup>;
}

/** JSON of a server whose types nobody declares here. */
export type Untyped = ReturnType<typeof JSON.parse>;

export const portText = ({ port, protocol }: { port: number; protocol?: string }): string =>
  `${port}/${protocol ?? "TCP"}`;

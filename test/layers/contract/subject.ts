/** What a contract suite needs to run against an implementation of the backends. */
import type { Backends, KeyPairFiles, Operation } from "../../../provider/backends/index.js";

export interface Subject {
  backends: Backends;
  imageDigest: string;
  certificateAuthority: KeyPairFiles;
  clientIdentity: KeyPairFiles;
  /** Takes the machine's power away, as a crash of QEMU does. */
  crash(machineId: string): Promise<void>;
  /** Makes a living machine's agent unreachable until the returned function is called. */
  silence(machineId: string): Promise<() => Promise<void>>;
  /** Ends the registry's process. */
  crashRegistry(registryId: string): Promise<void>;
}

/** Gives the subject; called once per suite. `dispose` removes everything that a failed test left. */
export type MakeSubject = () => Promise<{ subject: Subject; dispose(): Promise<void> }>;

const minutes = 60_000;

export interface RecordedOperation extends Operation {
  checkpoints: string[];
  lines: string[];
}

/**
 * An operation of the engine; `name` makes the owner.
 *
 * @param stopAt a checkpoint at which the call is cancelled.
 */
export function operation(name: string, stopAt?: string): RecordedOperation {
  const controller = new AbortController();
  const checkpoints: string[] = [];
  const lines: string[] = [];
  return {
    owner: {
      backend: "file:///contract",
      project: "palisade",
      stack: "contract",
      urn: `urn:pulumi:contract::palisade::palisade:index:Thing::${name}`,
    },
    signal: controller.signal,
    deadline: Date.now() + 15 * minutes,
    checkpoints,
    lines,
    log: (severity, message) => void lines.push(`${severity}: ${message}`),
    status: (message) => void lines.push(message),
    async checkpoint(reached) {
      checkpoints.push(reached);
      if (reached !== stopAt) return;
      controller.abort();
      controller.signal.throwIfAborted();
    },
  };
}

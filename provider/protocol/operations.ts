/** The CRUD calls in flight: who they work for, until when, and how they end early. */
import { noCheckpoint, type Operation, type Owner } from "../backends/index.js";
import type { EngineLog } from "./engine-log.js";

/**
 * After its deadline an operation has this long to end by itself, because its own error says more than the server's.
 */
const graceMilliseconds = 5_000;

export class Operations {
  private readonly inFlight = new Set<{ controller: AbortController; done: Promise<unknown> }>();

  constructor(
    private readonly log: EngineLog,
    private readonly checkpoint: (name: string) => Promise<void> = noCheckpoint,
  ) {}

  /**
   * Runs one call. `action` is the verb in messages and the name of its customTimeouts entry, `seconds` is the longest
   * time that it may take.
   */
  async run<T>(
    request: { urn: string; backend: string; action: string; seconds: number },
    body: (op: Operation) => Promise<T>,
  ): Promise<T> {
    const { urn, action, seconds } = request;
    const controller = new AbortController();
    const expired = new Error(
      `${action} did not come to its end within ${seconds} s and was ended. What exists so far is kept and the next ` +
        `\`pulumi up\` goes on with it; give it more time with the resource option customTimeouts.${action}.`,
    );
    const deadline = Date.now() + seconds * 1000;
    const timer = setTimeout(
      () => controller.abort(expired),
      Math.min(seconds * 1000 + graceMilliseconds, 2 ** 31 - 1),
    );
    let lastStatus: string | undefined;
    const op: Operation = {
      owner: ownerOf(urn, request.backend),
      signal: controller.signal,
      deadline,
      log: (severity, message) => this.log.log(urn, severity, message),
      status: (message) => {
        // Backends report each poll. Only a changed status is shown.
        if (message === lastStatus) return;
        lastStatus = message;
        this.log.log(urn, "info", message, true);
      },
      checkpoint: this.checkpoint,
    };
    const done = body(op);
    const entry = { controller, done: done.catch(() => undefined) };
    this.inFlight.add(entry);
    try {
      return await done;
    } catch (error) {
      if (controller.signal.reason === expired && isAbort(error, controller.signal)) throw expired;
      throw error;
    } finally {
      clearTimeout(timer);
      this.inFlight.delete(entry);
    }
  }

  get idle(): boolean {
    return this.inFlight.size === 0;
  }

  /** Aborts the calls in flight. Later calls run, because the engine also cancels at each normal end of a run. */
  cancel(): void {
    for (const { controller } of this.inFlight) {
      controller.abort(
        Object.assign(
          new Error("the operation was cancelled; what exists so far is kept, the next `pulumi up` goes on with it"),
          { name: "AbortError" },
        ),
      );
    }
  }

  /** Resolves when no call is in flight, at the latest after `milliseconds`. */
  async settled(milliseconds: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => (timer = setTimeout(resolve, milliseconds)));
    await Promise.race([Promise.all([...this.inFlight].map(({ done }) => done)), timeout]);
    clearTimeout(timer);
  }
}

function isAbort(error: unknown, signal: AbortSignal): boolean {
  return error === signal.reason || (error instanceof Error && error.name === "AbortError");
}

/** `urn:pulumi:<stack>::<project>::<type>::<name>` */
export function ownerOf(urn: string, backend: string): Owner {
  const [head = "", project = ""] = urn.split("::");
  return { backend, project, stack: head.split(":")[2] ?? "", urn };
}

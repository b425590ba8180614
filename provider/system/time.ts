/** Work that ends when a call is cancelled or its time is over. */

/** A call's time is used up. */
export class DeadlineExceededError extends Error {
  override readonly name = "DeadlineExceededError";
}

/**
 * A signal that is aborted by cancellation and, with a DeadlineExceededError, at the deadline. `end` must be called
 * when the call is over.
 */
export function bounded(
  operation: { signal: AbortSignal; deadline: number },
  doing: string,
): { signal: AbortSignal; end: () => void } {
  const controller = new AbortController();
  const cancelled = () => controller.abort(operation.signal.reason);
  if (operation.signal.aborted) cancelled();
  operation.signal.addEventListener("abort", cancelled, { once: true });
  const left = Math.min(Math.max(0, operation.deadline - Date.now()), 2 ** 31 - 1);
  const timer = setTimeout(
    () =>
      controller.abort(
        new DeadlineExceededError(
          `${doing}: not done in time; what was made so far is kept and the next run goes on from there`,
        ),
      ),
    left,
  );
  return {
    signal: controller.signal,
    end: () => {
      clearTimeout(timer);
      operation.signal.removeEventListener("abort", cancelled);
    },
  };
}

/** Runs `work` with a signal that ends at the operation's cancellation or deadline. */
export async function within<T>(
  operation: { signal: AbortSignal; deadline: number },
  doing: string,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { signal, end } = bounded(operation, doing);
  try {
    return await work(signal);
  } finally {
    end();
  }
}

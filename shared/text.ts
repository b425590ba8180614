/** Texts in messages. */

/** At most so many UTF-16 code units of a text, whole characters only; one that is cut ends in an ellipsis. */
export function shorten(text: string, maximum: number): string {
  if (text.length <= maximum) return text;
  const end = maximum - 1;
  // Half of a surrogate pair would be no character any more.
  const half = /^[\ud800-\udbff][\udc00-\udfff]$/.test(text.slice(end - 1, end + 1));
  return `${text.slice(0, half ? end - 1 : end)}…`;
}

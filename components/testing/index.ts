/** `@palisade-host/palisade/testing`: stacks for tests that leave nothing behind. Works with any test runner. */
export { ephemeralStack, type EphemeralStack, type EphemeralStackOptions } from "./ephemeral-stack.js";

export { runPlugin } from "./plugin-process.js";
export type { Configuration, ProviderOptions } from "./provider.js";
export { serve, type RunningProvider } from "./serve.js";

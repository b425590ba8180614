/**
 * The program that Pulumi runs. The configuration chooses the environment; the stack's name means nothing. An
 * environment is loaded when it is chosen: the packages of the clouds are large, and optional.
 */
import { type Configuration, type Environment, readConfiguration } from "./configuration.js";

type Program = (configuration: Configuration) => Record<string, unknown>;

const programs: Record<Environment, () => Promise<Program>> = {
  local: async () => (await import("./local.js")).local,
  metal: async () => (await import("./metal.js")).metal,
  azure: async () => (await import("./azure.js")).azure,
  kubernetes: async () => (await import("./kubernetes.js")).kubernetes,
};

/** Declares the environment; returns the stack's outputs. */
export = async function main(): Promise<Record<string, unknown>> {
  const configuration = readConfiguration();
  const program = await programs[configuration.environment]();
  return program(configuration);
};

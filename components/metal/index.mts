/** For `import`: the same module that `require` gives, so that a program never holds two copies of it. */
export * from "./index.js";

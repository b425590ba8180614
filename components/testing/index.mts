/** For `import`: the same module that `require` gives. */
export * from "./index.js";

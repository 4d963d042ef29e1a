// What the compiler does not see: floating promises, loose equality, careless types.
import js from "@eslint/js";
import { defineConfig, globalIgnores } from "eslint/config";
import tseslint from "typescript-eslint";

export default defineConfig(
  globalIgnores([
    "node_modules/",
    "dist/",
    ".cache/",
    "coverage/",
    ".noetl/",
    "services/api/dashboard/",
  ]),
  js.configs.recommended,
  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      eqeqeq: ["error", "always", { null: "ignore" }],
      "no-console": "error",
      "no-param-reassign": "error",
      "prefer-const": "error",
      "object-shorthand": "error",
      "@typescript-eslint/consistent-type-imports": "error",
      "@typescript-eslint/no-explicit-any": "error",
      "@typescript-eslint/no-floating-promises": "error",
      "@typescript-eslint/no-misused-promises": "error",
      "@typescript-eslint/switch-exhaustiveness-check": [
        "error",
        { considerDefaultExhaustiveForUnions: true },
      ],
      "@typescript-eslint/no-unused-vars": [
        "error",
        { argsIgnorePattern: "^_", varsIgnorePattern: "^_" },
      ],
      // An action or a handler may be async by contract and have nothing to wait for.
      "@typescript-eslint/require-await": "off",
      // Values of playbooks are unknown by nature; they are made text where a message names them.
      "@typescript-eslint/restrict-template-expressions": "off",
      "@typescript-eslint/no-base-to-string": "off",
      // `this` of a Moleculer service is bound by the broker.
      "@typescript-eslint/unbound-method": "off",
      // Moleculer's own types are any in places; what comes from there is checked by our schemas.
      "@typescript-eslint/no-unsafe-assignment": "off",
      "@typescript-eslint/no-unsafe-argument": "off",
      "@typescript-eslint/no-unsafe-member-access": "off",
      "@typescript-eslint/no-unsafe-call": "off",
      "@typescript-eslint/no-unsafe-return": "off",
    },
  },
  {
    files: ["test/**/*.ts"],
    rules: {
      // A test builds its world up step by step.
      "no-param-reassign": "off",
    },
  },
  {
    // The bench, the tools of CI and the example app speak to a terminal.
    files: ["bench/**/*.ts", ".ci/**/*.ts", "examples/moleculer-app/*.ts"],
    rules: { "no-console": "off" },
  },
  {
    files: ["**/*.js"],
    languageOptions: { globals: { process: "readonly", console: "readonly", URL: "readonly" } },
  },
);

declare module "reveal-md/lib/render.js" {
  export function render(markdown: string, options?: object): Promise<string>;
}

declare module "reveal-md/lib/util.js" {
  export function parseYamlFrontMatter(text: string): { yamlOptions: Record<string, unknown>; markdown: string };
}

interface Window {
  Reveal: any;
  mermaid: any;
}

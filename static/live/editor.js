/** The code of a slide, once somebody edits it. */
import { indentWithTab } from "@codemirror/commands";
import { python } from "@codemirror/lang-python";
import { indentUnit, syntaxHighlighting } from "@codemirror/language";
import { StateEffect, StateField } from "@codemirror/state";
import { Decoration, EditorView, keymap, lineNumbers } from "@codemirror/view";
import { minimalSetup } from "codemirror";
import { highlighter } from "../../slides/engine/highlighter.mjs";

/** What a presenter's clicker sends: it moves slides from here too. */
const ofTheDeck = ["PageUp", "PageDown"];

/** @type {import("@codemirror/state").StateEffectType<Map<number, string>>} */
const shapesEffect = StateEffect.define();

/** What stands beside lines; it goes when they are edited. */
const shapesField = StateField.define({
  create: () => Decoration.none,
  update: (decorations, { docChanged, effects, state }) => {
    for (const effect of effects) if (effect.is(shapesEffect)) return Decoration.set(
      [...effect.value].filter(([line]) => line >= 1 && line <= state.doc.lines).map(([line, shape]) =>
        Decoration.line({ attributes: { "data-shape": shape } }).range(state.doc.line(line).from)),
      true,
    );
    return docChanged ? Decoration.none : decorations;
  },
  provide: (field) => EditorView.decorations.from(field),
});

/**
 * @param {EditorView} editor
 * @param {Map<number, string>} shapes by line, from 1
 */
export function showShapes(editor, shapes) {
  editor.dispatch({ effects: shapesEffect.of(shapes) });
}

/**
 * @param {object} options
 * @param {string} options.text
 * @param {number} options.firstLine of the file
 * @param {string} options.label
 * @param {() => void} options.onRun
 * @param {(text: string) => void} options.onChange
 */
export function openEditor({ text, firstLine, label, onRun, onChange }) {
  const leave = (/** @type {EditorView} */ { contentDOM }) => (contentDOM.blur(), true);
  const editor = new EditorView({
    doc: text,
    extensions: [
      keymap.of([
        { key: "Shift-Enter", run: (view) => (onRun(), leave(view)) },
        ...["Escape", ...ofTheDeck].map((key) => ({ key, run: leave })),
        indentWithTab,
      ]),
      minimalSetup,
      lineNumbers({ formatNumber: (line) => String(line + firstLine - 1) }),
      python(),
      shapesField,
      indentUnit.of("    "),
      syntaxHighlighting(highlighter),
      EditorView.contentAttributes.of({ "aria-label": `${label}: Escape leaves, Shift-Enter runs` }),
      EditorView.updateListener.of(({ docChanged, state }) => docChanged && onChange(state.doc.toString())),
    ],
  });
  // Other keys that are typed here are not the deck's.
  for (const type of /** @type {const} */ (["keydown", "keypress", "keyup"]))
    editor.dom.addEventListener(type, (event) => ofTheDeck.includes(event.key) || event.stopPropagation());
  return editor;
}

// CLIP's tokenizer: a text to the ids of its byte pairs (Sennrich et al. 2016), equal to transformers' CLIPTokenizer.

export interface TokenizerFile {
  vocab: Record<string, number>;
  merges: string[];
  bos: number;
  eos: number;
  pad: number;
  model_max_length: number;
  known_words: string[] | null; // every word of the training captions; null if there is no such list
}

/** A token of a prompt: its id, and the letters that it stands for, "</w>" taken off. */
export interface Token {
  id: number;
  text: string;
  endsWord: boolean;
}

const SPECIAL = /(<\|startoftext\|>|<\|endoftext\|>)/;
const PIECES = /'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu;
const PYTHONS_SPACE = /[\p{White_Space}\x1c-\x1f]+/u;
const PUNCTUATION = /^[!-/:-@[-`{-~]+|[!-/:-@[-`{-~]+$/g; // Python's string.punctuation, at both ends

export class Tokenizer {
  private readonly vocab: Map<string, number>;
  private readonly ranks: Map<string, number>;
  private readonly known: Set<string> | null;

  constructor(private readonly file: TokenizerFile) {
    this.vocab = new Map(Object.entries(file.vocab));
    this.ranks = new Map(file.merges.map((pair, rank) => [pair, rank]));
    this.known = file.known_words && new Set(file.known_words);
  }

  /** Ids of a prompt, model_max_length of them: start, the text's tokens (a longer text is cut), end, padding. */
  ids(prompt: string): number[] {
    const { bos, eos, pad, model_max_length: length } = this.file;
    const ids = [bos, ...this.shown(prompt).map((token) => token.id), eos];
    return [...ids, ...new Array<number>(length - ids.length).fill(pad)];
  }

  /** The tokens that the text encoder is shown: those of the prompt, without the ones beyond the length. */
  shown(prompt: string): Token[] {
    return this.tokens(prompt).slice(0, this.file.model_max_length - 2);
  }

  /** All tokens of a prompt, without start and end. */
  tokens(prompt: string): Token[] {
    return prompt.split(SPECIAL).flatMap((part) => {
      if (SPECIAL.test(part)) return [{ id: this.vocab.get(part)!, text: part, endsWord: true }];
      const normal = lower(part.normalize("NFC").replace(/\p{White_Space}+/gu, " "));
      return (normal.match(PIECES) ?? []).flatMap((piece) => this.pairs(piece));
    });
  }

  /** The words of a prompt that the model was never shown, each once; as ldm_course.text.unknown_words. */
  unknownWords(prompt: string): string[] {
    const words = prompt.split(PYTHONS_SPACE).map((word) => word.replace(PUNCTUATION, "").toLowerCase());
    return [...new Set(words)].filter((word) => word && this.known && !this.known.has(word));
  }

  /** One piece of text: its bytes, of which the pair that was merged first in training is merged first here. */
  private pairs(piece: string): Token[] {
    let parts = Array.from(new TextEncoder().encode(piece), (byte) => LETTERS[byte]);
    parts[parts.length - 1] += "</w>";
    for (;;) {
      let best = Infinity;
      for (let i = 0; i + 1 < parts.length; i++) {
        best = Math.min(best, this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity);
      }
      if (best === Infinity) break;
      const [left, right] = this.file.merges[best].split(" ");
      const merged: string[] = [];
      for (let i = 0; i < parts.length; i++) {
        if (parts[i] === left && parts[i + 1] === right) merged.push(left + parts[++i]);
        else merged.push(parts[i]);
      }
      parts = merged;
    }
    return parts.map((part) => ({ id: this.vocab.get(part)!, text: readable(part), endsWord: part.endsWith("</w>") }));
  }
}

/** Lower case letter by letter, without the rule for a sigma at the end of a word. */
function lower(text: string): string {
  return Array.from(text, (letter) => letter.toLowerCase()).join("");
}

/** The 256 letters that stand for bytes in the vocabulary: printable ones for themselves, the others from U+0100. */
const LETTERS: string[] = [];
const BYTES = new Map<string, number>();
for (let byte = 0, next = 256; byte < 256; byte++) {
  const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  LETTERS.push(String.fromCharCode(printable ? byte : next++));
  BYTES.set(LETTERS[byte], byte);
}

/** What a token looks like to a reader; bytes that are no whole letter show as dots. */
function readable(part: string): string {
  const bytes = Array.from(part.replace("</w>", ""), (letter) => BYTES.get(letter)!);
  return new TextDecoder().decode(new Uint8Array(bytes)).replaceAll("\ufffd", "·");
}

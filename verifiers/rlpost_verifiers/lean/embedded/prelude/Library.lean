/-! ## 9. More syntax: `conv`, `iterate`, `solve`, `simpa`, `erw`, `ext`, casts -/
declare_syntax_cat conv (behavior := both)
@[extern "rl"] opaque Lean.Parser.Tactic.Conv.convSeq1Indented : Lean.ParserDescr
@[extern "rl"] opaque Lean.Parser.Tactic.Conv.convSeqBracketed : Lean.ParserDescr
@[extern "rl"] opaque Lean.Parser.Tactic.Conv.convSeq : Lean.ParserDescr
@[extern "rl"] opaque Lean.Parser.Tactic.Conv.occsWildcard : Lean.ParserDescr
@[extern "rl"] opaque Lean.Parser.Tactic.Conv.occsIndexed : Lean.ParserDescr
@[extern "rl"] opaque Lean.Parser.Tactic.Conv.occs : Lean.ParserDescr
@[extern "rl"] opaque Lean.Parser.Tactic.Conv.argArg : Lean.ParserDescr
@[extern "rl"] opaque Lean.Parser.Tactic.Conv.enterArg : Lean.ParserDescr
@[extern "rl"] opaque Lean.Parser.Tactic.Conv.enterPattern : Lean.ParserDescr
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.conv : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.skip : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.lhs : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.rhs : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.fun : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.whnf : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.zeta : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.congr : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.arg : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.ext : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.change : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.delta : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.unfold : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.pattern : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.rewrite : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.simp : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.dsimp : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.simpMatch : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.reduce : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.clear : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.nestedTacticCore : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.nestedTactic : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.convTactic : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.nestedConv : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.convConvSeq : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.paren : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.convDone : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.convTrace_state : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.allGoals : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.anyGoals : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.case : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.case' : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.failIfSuccess : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.focus : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.first : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.convTry_ : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.convRepeat_ : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.convRfl : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.convLeft : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.convRight : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.convArgs : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.enter : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.convApply_ : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.withAnnotateState : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.«convRw__» : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.«convErw__» : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.«convIntro___» : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.«convNext__=>_» : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.«conv·_» : Lean.ParserDescr
@[conv_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.Conv.«conv_<;>_» : Lean.TrailingParserDescr
@[macro Lean.Parser.Tactic.Conv.allGoals, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_allGoals_1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.anyGoals, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_anyGoals_1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.case, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_case_1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.case', extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_case'_1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.convApply_, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_convApply__1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.convArgs, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_convArgs_1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.convDone, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_convDone_1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.convErw__, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_convErw___1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.convIntro___, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_convIntro____1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.convLeft, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_convLeft_1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.«convNext__=>_», extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_convNext__=>__1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.convRepeat_, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_convRepeat__1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.convRfl, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_convRfl_1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.convRight, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_convRight_1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.convRw__, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_convRw___1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.convTrace_state, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_convTrace_state_1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.convTry_, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_convTry__1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.«conv_<;>_», extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_conv_<;>__1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.«conv·_», extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_conv·__1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.failIfSuccess, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_failIfSuccess_1» : Lean.Macro
@[macro Lean.Parser.Tactic.Conv.focus, extern "rl"] opaque Lean.Parser.Tactic.Conv.«_aux_Init_Conv___macroRules_Lean_Parser_Tactic_Conv_focus_1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.tacticIterate____ : Lean.ParserDescr
@[macro Lean.Parser.Tactic.tacticIterate____, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_TacticsExtra___macroRules_Lean_Parser_Tactic_tacticIterate_____1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.tacticErw___ : Lean.ParserDescr
@[macro Lean.Parser.Tactic.tacticErw___, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_Meta___macroRules_Lean_Parser_Tactic_tacticErw____1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.rwaAt : Lean.ParserDescr
@[extern "rl"] opaque Lean.Parser.Tactic.simpaArgsRest : Lean.ParserDescr
@[extern "rl"] opaque Lean.Parser.Tactic.simpaUsingBangArgsRest : Lean.ParserDescr
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.simpa : Lean.ParserDescr
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.simpaUsingBang : Lean.ParserDescr
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.constructorBang : Lean.ParserDescr
@[macro Lean.Parser.Tactic.constructorBang, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_Meta___macroRules_Lean_Parser_Tactic_constructorBang_1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.normCast0 : Lean.ParserDescr
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.tacticNorm_cast__ : Lean.ParserDescr
@[macro Lean.Parser.Tactic.tacticNorm_cast__, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticNorm_cast___1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.tacticExact_mod_cast_ : Lean.ParserDescr
@[macro Lean.Parser.Tactic.tacticExact_mod_cast_, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_TacticsExtra___macroRules_Lean_Parser_Tactic_tacticExact_mod_cast__1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.tacticApply_mod_cast_ : Lean.ParserDescr
@[macro Lean.Parser.Tactic.tacticApply_mod_cast_, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_TacticsExtra___macroRules_Lean_Parser_Tactic_tacticApply_mod_cast__1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.tacticAssumption_mod_cast_ : Lean.ParserDescr
@[macro Lean.Parser.Tactic.tacticAssumption_mod_cast_, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticAssumption_mod_cast__1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.tacticRw_mod_cast___ : Lean.ParserDescr
@[macro Lean.Parser.Tactic.tacticRw_mod_cast___, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_TacticsExtra___macroRules_Lean_Parser_Tactic_tacticRw_mod_cast____1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.pushCast : Lean.ParserDescr
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.tacticHaveI__ : Lean.ParserDescr
@[macro Lean.Parser.Tactic.tacticHaveI__, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticHaveI___1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.tacticLetI__ : Lean.ParserDescr
@[macro Lean.Parser.Tactic.tacticLetI__, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticLetI___1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.tacticLet'__ : Lean.ParserDescr
@[macro Lean.Parser.Tactic.tacticLet'__, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticLet'___1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.tacticRefine_lift'_ : Lean.ParserDescr
@[macro Lean.Parser.Tactic.tacticRefine_lift'_, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticRefine_lift'__1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.tacIfThenElse : Lean.ParserDescr
@[macro Lean.Parser.Tactic.tacIfThenElse, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_TacticsExtra___macroRules_Lean_Parser_Tactic_tacIfThenElse_1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.tacDepIfThenElse : Lean.ParserDescr
@[macro Lean.Parser.Tactic.tacDepIfThenElse, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_TacticsExtra___macroRules_Lean_Parser_Tactic_tacDepIfThenElse_1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.acNf0 : Lean.ParserDescr
@[tactic_parser 1000, extern "rl"] opaque Lean.Parser.Tactic.tacticAc_nf_ : Lean.ParserDescr
@[macro Lean.Parser.Tactic.tacticAc_nf_, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticAc_nf__1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.solveTactic : Lean.ParserDescr
@[macro Lean.solveTactic, extern "rl"] opaque Lean.«_aux_Init_NotationExtra___macroRules_Lean_solveTactic_1» : Lean.Macro
@[conv_parser 1000, extern "rl"] opaque Lean.convCalc_ : Lean.ParserDescr
@[macro Lean.convCalc_, extern "rl"] opaque Lean.«_aux_Init_NotationExtra___macroRules_Lean_convCalc__1» : Lean.Macro
@[tactic_parser 1000, extern "rl"] opaque Lean.Elab.Tactic.Ext.ext : Lean.ParserDescr
@[tactic_parser 1000, extern "rl"] opaque Lean.Elab.Tactic.Ext.tacticExt1___ : Lean.ParserDescr
@[macro Lean.Elab.Tactic.Ext.tacticExt1___, extern "rl"] opaque Lean.Elab.Tactic.Ext.«_aux_Init_Ext___macroRules_Lean_Elab_Tactic_Ext_tacticExt1____1» : Lean.Macro
@[macro Lean.Parser.Tactic.letrec, extern "rl"] opaque Lean.Parser.Tactic.«_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_letrec_1» : Lean.Macro
@[extern "rl"] opaque Lean.Parser.Attr.extIff : Lean.ParserDescr
@[extern "rl"] opaque Lean.Parser.Attr.extFlat : Lean.ParserDescr
@[attr_parser, extern "rl"] opaque Lean.Parser.Attr.ext : Lean.ParserDescr
@[prio_parser 1000, extern "rl"] opaque prioDefault : Lean.ParserDescr
@[macro prioDefault, extern "rl"] opaque _aux_Init_Notation___macroRules_prioDefault_1 : Lean.Macro
attribute [ext] funext propext

/-! ## 10. Rules for `if` that `simp`, `split` and people name -/
class Subsingleton (α : Sort u) : Prop where
  intro ::
  allEq : (a b : α) → a = b
protected theorem Subsingleton.elim {α : Sort u} [h : Subsingleton α] : (a b : α) → a = b := h.allEq
protected theorem Subsingleton.helim {α β : Sort u} [h₁ : Subsingleton α] (h₂ : α = β) (a : α) (b : β) : HEq a b := by
  subst h₂; exact heq_of_eq (Subsingleton.elim a b)
instance instSubsingletonOfProp (p : Prop) : Subsingleton p := ⟨fun _ _ => rfl⟩
instance instSubsingletonDecidable (p : Prop) : Subsingleton (Decidable p) := ⟨fun d e =>
  match d, e with
  | .isTrue _, .isTrue _ => rfl
  | .isFalse _, .isFalse _ => rfl
  | .isTrue h, .isFalse n => absurd h n
  | .isFalse n, .isTrue h => absurd h n⟩
theorem ite_eq_left {c : Prop} {h : Decidable c} (hc : c) {α : Sort u} {t e : α} : ite c t e = t :=
  match h with
  | .isTrue _ => rfl
  | .isFalse n => absurd hc n
theorem ite_eq_right {c : Prop} {h : Decidable c} (hn : ¬ c) {α : Sort u} {t e : α} : ite c t e = e :=
  match h with
  | .isTrue hc => absurd hc hn
  | .isFalse _ => rfl
theorem dite_eq_left {c : Prop} {h : Decidable c} (hc : c) {α : Sort u} {t : c → α} {e : ¬ c → α} :
    dite c t e = t hc :=
  match h with
  | .isTrue _ => rfl
  | .isFalse n => absurd hc n
theorem dite_eq_right {c : Prop} {h : Decidable c} (hn : ¬ c) {α : Sort u} {t : c → α} {e : ¬ c → α} :
    dite c t e = e hn :=
  match h with
  | .isTrue hc => absurd hc hn
  | .isFalse _ => rfl
theorem if_pos {c : Prop} {h : Decidable c} (hc : c) {α : Sort u} {t e : α} : ite c t e = t := ite_eq_left hc
theorem if_neg {c : Prop} {h : Decidable c} (hn : ¬ c) {α : Sort u} {t e : α} : ite c t e = e := ite_eq_right hn
theorem dif_pos {c : Prop} {h : Decidable c} (hc : c) {α : Sort u} {t : c → α} {e : ¬ c → α} : dite c t e = t hc :=
  dite_eq_left hc
theorem dif_neg {c : Prop} {h : Decidable c} (hn : ¬ c) {α : Sort u} {t : c → α} {e : ¬ c → α} : dite c t e = e hn :=
  dite_eq_right hn
theorem ite_eq_left_of_eq_true {α : Sort u} {c : Prop} {_ : Decidable c} (a b : α) (h : c = True) : ite c a b = a :=
  ite_eq_left (of_eq_true h)
theorem ite_eq_right_of_eq_false {α : Sort u} {c : Prop} {_ : Decidable c} (a b : α) (h : c = False) : ite c a b = b :=
  ite_eq_right (of_eq_false h)
theorem dite_eq_left_of_eq_true {α : Sort u} {c : Prop} {_ : Decidable c} {t : c → α} {e : ¬ c → α} (h : c = True) :
    dite c t e = t (of_eq_true h) := dite_eq_left (of_eq_true h)
theorem dite_eq_right_of_eq_false {α : Sort u} {c : Prop} {_ : Decidable c} {t : c → α} {e : ¬ c → α} (h : c = False) :
    dite c t e = e (of_eq_false h) := dite_eq_right (of_eq_false h)
theorem Eq.mpr_prop {p q : Prop} (h₁ : p = q) (h₂ : q) : p := h₁.mpr h₂
theorem Eq.mpr_not {p q : Prop} (h₁ : p = q) (h₂ : ¬ q) : ¬ p := fun h => h₂ (h₁.mp h)
theorem Lean.Sym.ite_cond_congr {α : Sort u} (c : Prop) {inst : Decidable c} (a b : α)
    (c' : Prop) {inst' : Decidable c'} (h : c = c') : @ite α c inst a b = @ite α c' inst' a b := by
  subst h
  cases Classical.em c with
  | inl hc => rw [ite_eq_left hc, ite_eq_left hc]
  | inr hn => rw [ite_eq_right hn, ite_eq_right hn]
theorem Lean.Sym.dite_cond_congr {α : Sort u} (c : Prop) {inst : Decidable c} (a : c → α) (b : ¬ c → α)
    (c' : Prop) {inst' : Decidable c'} (h : c = c') :
    @dite α c inst a b = @dite α c' inst' (fun h' => a (h.mpr_prop h')) (fun h' => b (h.mpr_not h')) := by
  subst h
  cases Classical.em c with
  | inl hc => rw [dite_eq_left hc, dite_eq_left hc]
  | inr hn => rw [dite_eq_right hn, dite_eq_right hn]
@[congr] theorem ite_congr {α : Sort u} {x y t e : α} {b c : Prop} {s : Decidable b} [Decidable c]
    (h₁ : b = c) (h₂ : c → x = t) (h₃ : ¬ c → y = e) : ite b x y = ite c t e := by
  cases Classical.em c with
  | inl hc => rw [ite_eq_left hc, ite_eq_left (h₁.mpr_prop hc)]; exact h₂ hc
  | inr hn => rw [ite_eq_right hn, ite_eq_right (h₁.mpr_not hn)]; exact h₃ hn
@[simp] theorem ite_true {α : Sort u} (a b : α) : (if True then a else b) = a := rfl
@[simp] theorem ite_false {α : Sort u} (a b : α) : (if False then a else b) = b := rfl
@[simp] theorem ite_self {α : Sort u} {c : Prop} {d : Decidable c} (a : α) : ite c a a = a := by
  cases Classical.em c with
  | inl hc => rw [ite_eq_left hc]
  | inr hn => rw [ite_eq_right hn]
@[simp] theorem dite_eq_ite {α : Sort u} {c : Prop} {a b : α} [Decidable c] :
    (dite c (fun _ => a) (fun _ => b)) = ite c a b := by
  cases Classical.em c with
  | inl hc => rw [dite_eq_left hc, ite_eq_left hc]
  | inr hn => rw [dite_eq_right hn, ite_eq_right hn]
theorem not_not_intro {p : Prop} (h : p) : ¬ ¬ p := fun n => n h

/-! ## 11. Logic -/
theorem Nonempty.elim {α : Sort u} {p : Prop} (h : Nonempty α) (f : α → p) : p := h.rec f
theorem not_not {p : Prop} : ¬ ¬ p ↔ p := Classical.not_not
theorem by_contra {p : Prop} (h : ¬ p → False) : p := Classical.byContradiction h
theorem Classical.by_contradiction {p : Prop} (h : ¬ p → False) : p := Classical.byContradiction h
theorem by_cases {p q : Prop} (h₁ : p → q) (h₂ : ¬ p → q) : q := Classical.byCases h₁ h₂
theorem and_assoc {a b c : Prop} : (a ∧ b) ∧ c ↔ a ∧ b ∧ c :=
  ⟨fun h => ⟨h.1.1, h.1.2, h.2⟩, fun h => ⟨⟨h.1, h.2.1⟩, h.2.2⟩⟩
theorem or_assoc {a b c : Prop} : (a ∨ b) ∨ c ↔ a ∨ b ∨ c :=
  ⟨fun h => h.elim (fun h => h.elim .inl fun h => .inr (.inl h)) fun h => .inr (.inr h),
   fun h => h.elim (fun h => .inl (.inl h)) fun h => h.elim (fun h => .inl (.inr h)) .inr⟩
theorem and_left_comm {a b c : Prop} : a ∧ b ∧ c ↔ b ∧ a ∧ c :=
  ⟨fun h => ⟨h.2.1, h.1, h.2.2⟩, fun h => ⟨h.2.1, h.1, h.2.2⟩⟩
theorem or_left_comm {a b c : Prop} : a ∨ b ∨ c ↔ b ∨ a ∨ c :=
  ⟨fun h => h.elim (fun h => .inr (.inl h)) fun h => h.elim .inl fun h => .inr (.inr h),
   fun h => h.elim (fun h => .inr (.inl h)) fun h => h.elim .inl fun h => .inr (.inr h)⟩
theorem and_or_left {a b c : Prop} : a ∧ (b ∨ c) ↔ (a ∧ b) ∨ (a ∧ c) :=
  ⟨fun h => h.2.elim (fun k => .inl ⟨h.1, k⟩) fun k => .inr ⟨h.1, k⟩,
   fun h => h.elim (fun k => ⟨k.1, .inl k.2⟩) fun k => ⟨k.1, .inr k.2⟩⟩
theorem or_and_right {a b c : Prop} : (a ∨ b) ∧ c ↔ (a ∧ c) ∨ (b ∧ c) :=
  ⟨fun h => h.1.elim (fun k => .inl ⟨k, h.2⟩) fun k => .inr ⟨k, h.2⟩,
   fun h => h.elim (fun k => ⟨.inl k.1, k.2⟩) fun k => ⟨.inr k.1, k.2⟩⟩
theorem or_and_left {a b c : Prop} : a ∨ (b ∧ c) ↔ (a ∨ b) ∧ (a ∨ c) :=
  ⟨fun h => h.elim (fun k => ⟨.inl k, .inl k⟩) fun k => ⟨.inr k.1, .inr k.2⟩,
   fun h => h.1.elim .inl fun k => h.2.elim .inl fun l => .inr ⟨k, l⟩⟩
theorem and_or_right {a b c : Prop} : (a ∧ b) ∨ c ↔ (a ∨ c) ∧ (b ∨ c) :=
  ⟨fun h => h.elim (fun k => ⟨.inl k.1, .inl k.2⟩) fun k => ⟨.inr k, .inr k⟩,
   fun h => h.1.elim (fun k => h.2.elim (fun l => .inl ⟨k, l⟩) .inr) .inr⟩
@[simp] theorem and_imp {a b c : Prop} : (a ∧ b → c) ↔ (a → b → c) := ⟨fun h a b => h ⟨a, b⟩, fun h k => h k.1 k.2⟩
theorem or_imp {a b c : Prop} : (a ∨ b → c) ↔ (a → c) ∧ (b → c) :=
  ⟨fun h => ⟨fun a => h (.inl a), fun b => h (.inr b)⟩, fun h k => k.elim h.1 h.2⟩
@[simp] theorem not_or {p q : Prop} : ¬ (p ∨ q) ↔ ¬ p ∧ ¬ q :=
  ⟨fun h => ⟨fun p => h (.inl p), fun q => h (.inr q)⟩, fun h k => k.elim h.1 h.2⟩
@[simp] theorem not_and {a b : Prop} : ¬ (a ∧ b) ↔ (a → ¬ b) := ⟨fun h a b => h ⟨a, b⟩, fun h k => h k.1 k.2⟩
theorem Classical.not_and_iff_not_or_not {a b : Prop} : ¬ (a ∧ b) ↔ ¬ a ∨ ¬ b :=
  ⟨fun h => (Classical.em a).elim (fun x => .inr fun y => h ⟨x, y⟩) .inl,
   fun h k => h.elim (fun n => n k.1) fun n => n k.2⟩
theorem not_and_or {a b : Prop} : ¬ (a ∧ b) ↔ ¬ a ∨ ¬ b := Classical.not_and_iff_not_or_not
theorem not_and_of_not_left {a : Prop} (b : Prop) (h : ¬ a) : ¬ (a ∧ b) := fun k => h k.1
theorem not_and_of_not_right (a : Prop) {b : Prop} (h : ¬ b) : ¬ (a ∧ b) := fun k => h k.2
theorem not_imp {a b : Prop} : ¬ (a → b) ↔ a ∧ ¬ b :=
  ⟨fun h => ⟨Classical.byContradiction fun n => h fun x => (n x).elim, fun y => h fun _ => y⟩, fun h k => h.2 (k h.1)⟩
theorem Classical.not_imp {a b : Prop} : ¬ (a → b) ↔ a ∧ ¬ b := _root_.not_imp
theorem imp_iff_not_or {a b : Prop} : (a → b) ↔ ¬ a ∨ b :=
  ⟨fun h => (Classical.em a).elim (fun x => .inr (h x)) .inl, fun h x => h.elim (fun n => (n x).elim) id⟩
theorem or_iff_not_imp_left {a b : Prop} : a ∨ b ↔ (¬ a → b) :=
  ⟨fun h n => h.elim (fun x => (n x).elim) id, fun h => (Classical.em a).elim .inl fun n => .inr (h n)⟩
theorem not_imp_not {a b : Prop} : (¬ a → ¬ b) ↔ (b → a) :=
  ⟨fun h y => Classical.byContradiction fun n => h n y, fun h n y => n (h y)⟩
theorem not_iff_not_of_iff {a b : Prop} (h : a ↔ b) : ¬ a ↔ ¬ b := ⟨mt h.mpr, mt h.mp⟩
theorem iff_of_true {a b : Prop} (ha : a) (hb : b) : a ↔ b := ⟨fun _ => hb, fun _ => ha⟩
theorem iff_of_false {a b : Prop} (ha : ¬ a) (hb : ¬ b) : a ↔ b := ⟨fun h => (ha h).elim, fun h => (hb h).elim⟩
theorem iff_comm {a b : Prop} : (a ↔ b) ↔ (b ↔ a) := ⟨Iff.symm, Iff.symm⟩
theorem Iff.comm {a b : Prop} : (a ↔ b) ↔ (b ↔ a) := iff_comm
theorem iff_def {a b : Prop} : (a ↔ b) ↔ (a → b) ∧ (b → a) := ⟨fun h => ⟨h.1, h.2⟩, fun h => ⟨h.1, h.2⟩⟩
theorem iff_iff_implies_and_implies {a b : Prop} : (a ↔ b) ↔ (a → b) ∧ (b → a) := iff_def
theorem iff_of_eq {a b : Prop} (h : a = b) : a ↔ b := h ▸ Iff.rfl
theorem and_congr {a b c d : Prop} (h₁ : a ↔ c) (h₂ : b ↔ d) : a ∧ b ↔ c ∧ d :=
  ⟨fun h => ⟨h₁.1 h.1, h₂.1 h.2⟩, fun h => ⟨h₁.2 h.1, h₂.2 h.2⟩⟩
theorem or_congr {a b c d : Prop} (h₁ : a ↔ c) (h₂ : b ↔ d) : a ∨ b ↔ c ∨ d :=
  ⟨fun h => h.elim (fun x => .inl (h₁.1 x)) fun x => .inr (h₂.1 x),
   fun h => h.elim (fun x => .inl (h₁.2 x)) fun x => .inr (h₂.2 x)⟩
theorem imp_congr {a b c d : Prop} (h₁ : a ↔ c) (h₂ : b ↔ d) : (a → b) ↔ (c → d) :=
  ⟨fun h x => h₂.1 (h (h₁.2 x)), fun h x => h₂.2 (h (h₁.1 x))⟩
theorem not_congr {a b : Prop} (h : a ↔ b) : ¬ a ↔ ¬ b := not_iff_not_of_iff h
theorem Or.imp {a b c d : Prop} (f : a → c) (g : b → d) (h : a ∨ b) : c ∨ d := h.elim (fun x => .inl (f x)) fun x => .inr (g x)
theorem Or.imp_left {a b c : Prop} (f : a → b) (h : a ∨ c) : b ∨ c := h.imp f id
theorem Or.imp_right {a b c : Prop} (f : b → c) (h : a ∨ b) : a ∨ c := h.imp id f
theorem Or.resolve_left {a b : Prop} (h : a ∨ b) (n : ¬ a) : b := h.elim (fun x => (n x).elim) id
theorem Or.resolve_right {a b : Prop} (h : a ∨ b) (n : ¬ b) : a := h.elim id fun x => (n x).elim
theorem Or.comm {a b : Prop} : a ∨ b ↔ b ∨ a := or_comm
theorem And.comm {a b : Prop} : a ∧ b ↔ b ∧ a := and_comm
theorem And.imp {a b c d : Prop} (f : a → c) (g : b → d) (h : a ∧ b) : c ∧ d := ⟨f h.1, g h.2⟩
theorem And.imp_left {a b c : Prop} (f : a → b) (h : a ∧ c) : b ∧ c := ⟨f h.1, h.2⟩
theorem And.imp_right {a b c : Prop} (f : a → b) (h : c ∧ a) : c ∧ b := ⟨h.1, f h.2⟩
@[macro_inline] protected def Not.elim {a : Prop} {α : Sort u} (n : ¬ a) (h : a) : α := absurd h n
protected theorem Not.imp {a b : Prop} (n : ¬ b) (f : a → b) : ¬ a := mt f n
theorem Function.mt {a b : Prop} (f : a → b) (n : ¬ b) : ¬ a := _root_.mt f n
theorem not_exists {α : Sort u} {p : α → Prop} : (¬ ∃ x, p x) ↔ ∀ x, ¬ p x := ⟨fun h x k => h ⟨x, k⟩, fun h ⟨x, k⟩ => h x k⟩
theorem not_forall {α : Sort u} {p : α → Prop} : (¬ ∀ x, p x) ↔ ∃ x, ¬ p x :=
  ⟨fun h => Classical.byContradiction fun n => h fun x => Classical.byContradiction fun k => n ⟨x, k⟩, fun ⟨x, k⟩ h => k (h x)⟩
theorem Classical.not_forall {α : Sort u} {p : α → Prop} : (¬ ∀ x, p x) ↔ ∃ x, ¬ p x := _root_.not_forall
theorem Classical.not_exists_not {α : Sort u} {p : α → Prop} : (¬ ∃ x, ¬ p x) ↔ ∀ x, p x :=
  ⟨fun h x => Classical.byContradiction fun k => h ⟨x, k⟩, fun h ⟨x, k⟩ => k (h x)⟩
theorem exists_imp {α : Sort u} {p : α → Prop} {b : Prop} : ((∃ x, p x) → b) ↔ ∀ x, p x → b :=
  ⟨fun h x k => h ⟨x, k⟩, fun h ⟨x, k⟩ => h x k⟩
theorem forall_and {α : Sort u} {p q : α → Prop} : (∀ x, p x ∧ q x) ↔ (∀ x, p x) ∧ ∀ x, q x :=
  ⟨fun h => ⟨fun x => (h x).1, fun x => (h x).2⟩, fun h x => ⟨h.1 x, h.2 x⟩⟩
theorem exists_or {α : Sort u} {p q : α → Prop} : (∃ x, p x ∨ q x) ↔ (∃ x, p x) ∨ ∃ x, q x :=
  ⟨fun ⟨x, h⟩ => h.elim (fun k => .inl ⟨x, k⟩) fun k => .inr ⟨x, k⟩,
   fun h => h.elim (fun ⟨x, k⟩ => ⟨x, .inl k⟩) fun ⟨x, k⟩ => ⟨x, .inr k⟩⟩
theorem Exists.imp {α : Sort u} {p q : α → Prop} (h : ∀ a, p a → q a) : (∃ a, p a) → ∃ a, q a := fun ⟨a, k⟩ => ⟨a, h a k⟩
theorem forall_congr' {α : Sort u} {p q : α → Prop} (h : ∀ a, p a ↔ q a) : (∀ a, p a) ↔ ∀ a, q a :=
  ⟨fun k a => (h a).1 (k a), fun k a => (h a).2 (k a)⟩
theorem exists_congr {α : Sort u} {p q : α → Prop} (h : ∀ a, p a ↔ q a) : (∃ a, p a) ↔ ∃ a, q a :=
  ⟨fun ⟨a, k⟩ => ⟨a, (h a).1 k⟩, fun ⟨a, k⟩ => ⟨a, (h a).2 k⟩⟩
@[simp] theorem exists_prop {a b : Prop} : (∃ _ : a, b) ↔ a ∧ b := ⟨fun ⟨x, y⟩ => ⟨x, y⟩, fun h => ⟨h.1, h.2⟩⟩
@[simp] theorem exists_eq_left {α : Sort u} {p : α → Prop} {a : α} : (∃ x, x = a ∧ p x) ↔ p a :=
  ⟨fun ⟨_, e, k⟩ => e ▸ k, fun k => ⟨a, rfl, k⟩⟩
@[simp] theorem exists_eq' {α : Sort u} {a : α} : ∃ x, a = x := ⟨a, rfl⟩
@[simp] theorem forall_eq {α : Sort u} {p : α → Prop} {a : α} : (∀ x, x = a → p x) ↔ p a := ⟨fun h => h a rfl, fun h x e => e ▸ h⟩
@[simp] theorem forall_eq' {α : Sort u} {p : α → Prop} {a : α} : (∀ x, a = x → p x) ↔ p a := ⟨fun h => h a rfl, fun h x e => e ▸ h⟩
@[simp] theorem forall_const {b : Prop} (α : Sort u) [i : Nonempty α] : (α → b) ↔ b := ⟨fun h => i.elim h, fun h _ => h⟩
@[simp] theorem and_self_iff {a : Prop} : a ∧ a ↔ a := ⟨fun h => h.1, fun h => ⟨h, h⟩⟩
@[simp] theorem or_self_iff {a : Prop} : a ∨ a ↔ a := ⟨fun h => h.elim id id, .inl⟩
@[simp] theorem and_not_self {a : Prop} : ¬ (a ∧ ¬ a) := fun h => h.2 h.1
@[simp] theorem not_and_self {a : Prop} : ¬ (¬ a ∧ a) := fun h => h.1 h.2
@[simp] theorem iff_not_self {a : Prop} : ¬ (a ↔ ¬ a) := fun h => have n : ¬ a := fun k => h.1 k k; n (h.2 n)
@[simp] theorem not_iff_self {a : Prop} : ¬ (¬ a ↔ a) := fun h => have n : ¬ a := fun k => h.2 k k; n (h.1 n)
@[simp] theorem imp_self {a : Prop} : (a → a) ↔ True := ⟨fun _ => trivial, fun _ => id⟩
@[simp] theorem imp_false {a : Prop} : (a → False) ↔ ¬ a := Iff.rfl
theorem imp_not_comm {a b : Prop} : (a → ¬ b) ↔ (b → ¬ a) := ⟨fun h y x => h x y, fun h x y => h y x⟩
theorem false_of_ne {α : Sort u} {a : α} (h : a ≠ a) : False := h rfl
theorem ne_of_gt' {a b : Nat} (h : b < a) : a ≠ b := fun e => by subst e; exact absurd (Nat.ble_eq_true_of_le h) (by
  intro k; have : ∀ n, Nat.ble (.succ n) n = false := fun n => n.rec rfl fun _ ih => ih
  exact Bool.ff_ne_tt ((this _).symm.trans k))
theorem eq_comm {α : Sort u} {a b : α} : a = b ↔ b = a := ⟨Eq.symm, Eq.symm⟩
theorem ne_comm {α : Sort u} {a b : α} : a ≠ b ↔ b ≠ a := ⟨Ne.symm, Ne.symm⟩
theorem Ne.elim {α : Sort u} {a b : α} (h : a ≠ b) (e : a = b) : False := h e
theorem Eq.le {a b : Nat} (h : a = b) : a ≤ b := h ▸ Nat.le.refl
theorem congrArg₂ {α : Sort u} {β : Sort v} {γ : Sort w} (f : α → β → γ) {a a' : α} {b b' : β} (h₁ : a = a') (h₂ : b = b') :
    f a b = f a' b' := h₁ ▸ h₂ ▸ rfl
theorem proof_irrel {p : Prop} (a b : p) : a = b := rfl
theorem Classical.skolem {α : Sort u} {b : α → Sort v} {p : (x : α) → b x → Prop} :
    (∀ x, ∃ y, p x y) ↔ ∃ f : (x : α) → b x, ∀ x, p x (f x) :=
  ⟨fun h => ⟨fun x => Classical.choose (h x), fun x => Classical.choose_spec (h x)⟩, fun ⟨f, h⟩ x => ⟨f x, h x⟩⟩
noncomputable def Exists.choose {α : Sort u} {p : α → Prop} (h : ∃ a, p a) : α := Classical.choose h
theorem Exists.choose_spec {α : Sort u} {p : α → Prop} (h : ∃ a, p a) : p h.choose := Classical.choose_spec h
theorem Decidable.not_not {p : Prop} [Decidable p] : ¬ ¬ p ↔ p := Classical.not_not
theorem Decidable.of_not_not {p : Prop} [Decidable p] (h : ¬ ¬ p) : p := Classical.not_not.1 h
def ExistsUnique {α : Sort u} (p : α → Prop) : Prop := ∃ x, p x ∧ ∀ y, p y → y = x

/-! ## 12. Booleans -/
instance instDecidableEqBool : DecidableEq Bool
  | false, false => .isTrue rfl
  | false, true => .isFalse fun h => Bool.ff_ne_tt h
  | true, false => .isFalse fun h => Bool.ff_ne_tt h.symm
  | true, true => .isTrue rfl
instance Bool.decidableForall {p : Bool → Prop} [Decidable (p false)] [Decidable (p true)] : Decidable (∀ b, p b) :=
  if h : p false ∧ p true then .isTrue fun b => match b with | false => h.1 | true => h.2
  else .isFalse fun k => h ⟨k false, k true⟩
instance Bool.decidableExists {p : Bool → Prop} [Decidable (p false)] [Decidable (p true)] : Decidable (∃ b, p b) :=
  if h : p false ∨ p true then .isTrue (h.elim (fun k => ⟨false, k⟩) fun k => ⟨true, k⟩)
  else .isFalse fun ⟨b, k⟩ => match b, k with | false, k => h (.inl k) | true, k => h (.inr k)
export Inhabited (default)
@[reducible] def optParam (α : Sort u) (default : α) : Sort u := α
instance : Inhabited Bool := ⟨false⟩
instance : Inhabited Nat := ⟨.zero⟩
instance : Inhabited Prop := ⟨True⟩
@[macro_inline] def or (x y : Bool) : Bool := match x with | true => true | false => y
@[macro_inline] def and (x y : Bool) : Bool := match x with | false => false | true => y
@[inline] def not : Bool → Bool
  | true => false
  | false => true
@[inline] def Bool.not : Bool → Bool := _root_.not
@[inline] def Bool.and (x y : Bool) : Bool := _root_.and x y
@[inline] def Bool.or (x y : Bool) : Bool := _root_.or x y
@[inline] def xor : Bool → Bool → Bool
  | true, b => !b
  | false, b => b
class BEq (α : Type u) where
  beq : α → α → Bool
instance instBEqOfDecidableEq {α : Type u} [DecidableEq α] : BEq α := ⟨fun a b => Decidable.decide (a = b)⟩
@[simp] theorem Bool.not_true : (!true) = false := rfl
@[simp] theorem Bool.not_false : (!false) = true := rfl
@[simp] theorem Bool.not_not (b : Bool) : (!!b) = b := by cases b <;> rfl
@[simp] theorem Bool.and_true (b : Bool) : (b && true) = b := by cases b <;> rfl
@[simp] theorem Bool.and_false (b : Bool) : (b && false) = false := by cases b <;> rfl
@[simp] theorem Bool.true_and (b : Bool) : (true && b) = b := rfl
@[simp] theorem Bool.false_and (b : Bool) : (false && b) = false := rfl
@[simp] theorem Bool.or_true (b : Bool) : (b || true) = true := by cases b <;> rfl
@[simp] theorem Bool.or_false (b : Bool) : (b || false) = b := by cases b <;> rfl
@[simp] theorem Bool.true_or (b : Bool) : (true || b) = true := rfl
@[simp] theorem Bool.false_or (b : Bool) : (false || b) = b := rfl
@[simp] theorem Bool.and_self (b : Bool) : (b && b) = b := by cases b <;> rfl
@[simp] theorem Bool.or_self (b : Bool) : (b || b) = b := by cases b <;> rfl
theorem Bool.and_comm (a b : Bool) : (a && b) = (b && a) := by cases a <;> cases b <;> rfl
theorem Bool.or_comm (a b : Bool) : (a || b) = (b || a) := by cases a <;> cases b <;> rfl
theorem Bool.and_assoc (a b c : Bool) : ((a && b) && c) = (a && (b && c)) := by cases a <;> rfl
theorem Bool.or_assoc (a b c : Bool) : ((a || b) || c) = (a || (b || c)) := by cases a <;> rfl
theorem Bool.not_and (a b : Bool) : (!(a && b)) = (!a || !b) := by cases a <;> rfl
theorem Bool.not_or (a b : Bool) : (!(a || b)) = (!a && !b) := by cases a <;> rfl
theorem Bool.of_not_eq_true {b : Bool} : ¬ (b = true) → b = false :=
  b.rec (motive := fun b => ¬ (b = true) → b = false) (fun _ => rfl) fun h => absurd rfl h
theorem Bool.of_not_eq_false {b : Bool} : ¬ (b = false) → b = true :=
  b.rec (motive := fun b => ¬ (b = false) → b = true) (fun h => absurd rfl h) fun _ => rfl
@[simp] theorem Bool.false_ne_true : ¬ (false = true) := Bool.ff_ne_tt
@[simp] theorem Bool.true_ne_false : ¬ (true = false) := fun h => Bool.ff_ne_tt h.symm
theorem Bool.eq_false_or_eq_true (b : Bool) : b = true ∨ b = false := by cases b <;> simp
@[simp] theorem Bool.not_eq_true (b : Bool) : (¬ (b = true)) = (b = false) := by cases b <;> simp
@[simp] theorem Bool.not_eq_false (b : Bool) : (¬ (b = false)) = (b = true) := by cases b <;> simp
@[simp] theorem Bool.and_eq_true (a b : Bool) : ((a && b) = true) = (a = true ∧ b = true) := by cases a <;> cases b <;> simp
@[simp] theorem Bool.or_eq_true (a b : Bool) : ((a || b) = true) = (a = true ∨ b = true) := by cases a <;> cases b <;> simp
@[simp] theorem decide_eq_true_eq {p : Prop} [Decidable p] : (Decidable.decide p = true) = p :=
  propext ⟨of_decide_eq_true, decide_eq_true⟩
@[simp] theorem decide_eq_false_iff_not {p : Prop} [inst : Decidable p] : (Decidable.decide p = false) ↔ ¬ p :=
  ⟨of_decide_eq_false, fun h => match inst with | .isTrue k => absurd k h | .isFalse _ => rfl⟩
@[simp] theorem beq_iff_eq {α : Type u} [DecidableEq α] {a b : α} : (a == b) = true ↔ a = b :=
  ⟨of_decide_eq_true, decide_eq_true⟩
theorem eq_of_beq {α : Type u} [DecidableEq α] {a b : α} (h : (a == b) = true) : a = b := of_decide_eq_true h
@[simp] theorem beq_self_eq_true {α : Type u} [DecidableEq α] (a : α) : (a == a) = true := decide_eq_true rfl

/-! ## 13. Natural numbers -/
class Dvd (α : Type u) where
  dvd : α → α → Prop
instance Nat.instDvdNat : Dvd Nat := ⟨fun a b => ∃ c, b = a * c⟩
class Max (α : Type u) where
  max : α → α → α
class Min (α : Type u) where
  min : α → α → α
export Max (max)
export Min (min)
instance instMaxNat : Max Nat := ⟨fun a b => if a ≤ b then b else a⟩
instance instMinNat : Min Nat := ⟨fun a b => if a ≤ b then a else b⟩
namespace Nat
theorem lt_irrefl (n : Nat) : ¬ n < n := fun h => ne_of_gt' h rfl
@[simp] theorem succ_eq_add_one (n : Nat) : succ n = n + 1 := rfl
@[simp] theorem zero_le (n : Nat) : 0 ≤ n := by induction n with
  | zero => exact .refl
  | succ n ih => exact .step ih
@[simp] protected theorem le_refl (n : Nat) : n ≤ n := .refl
protected theorem le_rfl {n : Nat} : n ≤ n := .refl
theorem le_succ (n : Nat) : n ≤ n + 1 := .step .refl
theorem le_add_one (n : Nat) : n ≤ n + 1 := .step .refl
protected theorem le_trans {a b c : Nat} (h : a ≤ b) (k : b ≤ c) : a ≤ c := by
  induction k with
  | refl => exact h
  | step _ ih => exact .step ih
theorem succ_le_succ {a b : Nat} (h : a ≤ b) : a + 1 ≤ b + 1 := by
  induction h with
  | refl => exact .refl
  | step _ ih => exact .step ih
theorem pred_le_pred {a b : Nat} (h : a ≤ b) : pred a ≤ pred b := by
  cases h with
  | refl => exact .refl
  | step k => cases a with
    | zero => exact k
    | succ a => exact Nat.le_trans (le_succ a) k
theorem le_of_succ_le_succ {a b : Nat} (h : a + 1 ≤ b + 1) : a ≤ b := pred_le_pred h
@[simp] theorem add_one_le_add_one_iff {a b : Nat} : a + 1 ≤ b + 1 ↔ a ≤ b := ⟨le_of_succ_le_succ, succ_le_succ⟩
theorem succ_le_succ_iff {a b : Nat} : a + 1 ≤ b + 1 ↔ a ≤ b := ⟨le_of_succ_le_succ, succ_le_succ⟩
theorem lt_of_succ_lt_succ {a b : Nat} (h : a + 1 < b + 1) : a < b := le_of_succ_le_succ h
theorem succ_lt_succ {a b : Nat} (h : a < b) : a + 1 < b + 1 := succ_le_succ h
@[simp] theorem add_one_lt_add_one_iff {a b : Nat} : a + 1 < b + 1 ↔ a < b := ⟨le_of_succ_le_succ, succ_le_succ⟩
@[simp] theorem not_succ_le_zero (n : Nat) : ¬ n + 1 ≤ 0 := nofun
@[simp] theorem not_lt_zero (n : Nat) : ¬ n < 0 := nofun
theorem not_succ_le_self (n : Nat) : ¬ n + 1 ≤ n := lt_irrefl n
protected theorem le_antisymm {a b : Nat} (h : a ≤ b) (k : b ≤ a) : a = b := by
  cases h with
  | refl => rfl
  | step h => exact absurd (Nat.le_trans (succ_le_succ h) k) (lt_irrefl _)
protected theorem le_antisymm_iff {a b : Nat} : a = b ↔ a ≤ b ∧ b ≤ a :=
  ⟨fun h => h ▸ ⟨.refl, .refl⟩, fun h => Nat.le_antisymm h.1 h.2⟩
protected theorem lt_of_lt_of_le {a b c : Nat} (h : a < b) (k : b ≤ c) : a < c := Nat.le_trans h k
protected theorem le_of_lt {a b : Nat} (h : a < b) : a ≤ b := Nat.le_trans (le_succ a) h
protected theorem lt_of_le_of_lt {a b c : Nat} (h : a ≤ b) (k : b < c) : a < c := Nat.le_trans (succ_le_succ h) k
protected theorem lt_trans {a b c : Nat} (h : a < b) (k : b < c) : a < c := Nat.lt_of_lt_of_le h (Nat.le_of_lt k)
theorem lt_succ_of_le {a b : Nat} (h : a ≤ b) : a < b + 1 := succ_le_succ h
theorem lt_add_one_of_le {a b : Nat} (h : a ≤ b) : a < b + 1 := succ_le_succ h
theorem le_of_lt_succ {a b : Nat} (h : a < b + 1) : a ≤ b := le_of_succ_le_succ h
theorem le_of_lt_add_one {a b : Nat} (h : a < b + 1) : a ≤ b := le_of_succ_le_succ h
theorem lt_succ_iff {a b : Nat} : a < b + 1 ↔ a ≤ b := ⟨le_of_lt_succ, lt_succ_of_le⟩
theorem lt_add_one_iff {a b : Nat} : a < b + 1 ↔ a ≤ b := ⟨le_of_lt_succ, lt_succ_of_le⟩
theorem succ_le_iff {a b : Nat} : a + 1 ≤ b ↔ a < b := Iff.rfl
theorem add_one_le_iff {a b : Nat} : a + 1 ≤ b ↔ a < b := Iff.rfl
theorem succ_le_of_lt {a b : Nat} (h : a < b) : a + 1 ≤ b := h
theorem lt_of_succ_le {a b : Nat} (h : a + 1 ≤ b) : a < b := h
theorem le_succ_of_le {a b : Nat} (h : a ≤ b) : a ≤ b + 1 := .step h
theorem lt_succ_self (n : Nat) : n < n + 1 := .refl
theorem lt_add_one (n : Nat) : n < n + 1 := .refl
@[simp] theorem succ_pos (n : Nat) : 0 < n + 1 := succ_le_succ (zero_le n)
@[simp] theorem zero_lt_succ (n : Nat) : 0 < succ n := succ_le_succ (zero_le n)
theorem add_one_pos (n : Nat) : 0 < n + 1 := succ_le_succ (zero_le n)
@[simp] theorem add_one_ne_zero (n : Nat) : n + 1 ≠ 0 := succ_ne_zero n
theorem zero_ne_add_one (n : Nat) : 0 ≠ n + 1 := fun h => succ_ne_zero n h.symm
theorem zero_ne_one : (0 : Nat) ≠ 1 := fun h => succ_ne_zero 0 h.symm
theorem one_ne_zero : (1 : Nat) ≠ 0 := succ_ne_zero 0
theorem zero_lt_one : (0 : Nat) < 1 := .refl
@[simp] theorem le_zero_eq (n : Nat) : (n ≤ 0) = (n = 0) :=
  propext ⟨fun h => Nat.le_antisymm h (zero_le n), fun h => h ▸ .refl⟩
theorem le_zero {n : Nat} : n ≤ 0 ↔ n = 0 := iff_of_eq (le_zero_eq n)
theorem eq_zero_of_le_zero {n : Nat} (h : n ≤ 0) : n = 0 := le_zero.1 h
theorem pos_of_ne_zero {n : Nat} (h : n ≠ 0) : 0 < n := by cases n with
  | zero => exact absurd rfl h
  | succ n => exact succ_pos n
theorem ne_of_gt {a b : Nat} (h : b < a) : a ≠ b := ne_of_gt' h
theorem ne_of_lt {a b : Nat} (h : a < b) : a ≠ b := fun e => ne_of_gt' h e.symm
theorem pos_iff_ne_zero {n : Nat} : 0 < n ↔ n ≠ 0 := ⟨fun h => ne_of_gt h, pos_of_ne_zero⟩
theorem eq_zero_or_pos (n : Nat) : n = 0 ∨ 0 < n := by cases n with
  | zero => exact .inl rfl
  | succ n => exact .inr (succ_pos n)
@[simp] theorem lt_self_iff_false (n : Nat) : (n < n) = False := eq_false (lt_irrefl n)
theorem lt_asymm {a b : Nat} (h : a < b) : ¬ b < a := fun k => lt_irrefl a (Nat.lt_trans h k)
theorem not_le_of_lt {a b : Nat} (h : a < b) : ¬ b ≤ a := fun k => lt_irrefl a (Nat.lt_of_lt_of_le h k)
theorem not_le_of_gt {a b : Nat} (h : b < a) : ¬ a ≤ b := not_le_of_lt h
theorem not_lt_of_le {a b : Nat} (h : a ≤ b) : ¬ b < a := fun k => lt_irrefl b (Nat.lt_of_lt_of_le k h)
theorem not_lt_of_ge {a b : Nat} (h : b ≥ a) : ¬ b < a := not_lt_of_le h
theorem lt_or_ge (a b : Nat) : a < b ∨ b ≤ a := by
  induction b with
  | zero => exact .inr (zero_le a)
  | succ b ih => cases ih with
    | inl h => exact .inl (.step h)
    | inr h => cases h with
      | refl => exact .inl .refl
      | step h => exact .inr (succ_le_succ h)
theorem le_or_lt (a b : Nat) : a ≤ b ∨ b < a := (lt_or_ge b a).symm
theorem le_total (a b : Nat) : a ≤ b ∨ b ≤ a := (lt_or_ge a b).imp Nat.le_of_lt id
theorem lt_or_eq_of_le {a b : Nat} (h : a ≤ b) : a < b ∨ a = b := by cases h with
  | refl => exact .inr rfl
  | step h => exact .inl (succ_le_succ h)
theorem eq_or_lt_of_le {a b : Nat} (h : a ≤ b) : a = b ∨ a < b := (lt_or_eq_of_le h).symm
theorem le_iff_lt_or_eq {a b : Nat} : a ≤ b ↔ a < b ∨ a = b := ⟨lt_or_eq_of_le, fun h => h.elim Nat.le_of_lt fun e => e ▸ .refl⟩
theorem lt_of_le_of_ne {a b : Nat} (h : a ≤ b) (n : a ≠ b) : a < b := (lt_or_eq_of_le h).resolve_right n
theorem lt_trichotomy (a b : Nat) : a < b ∨ a = b ∨ b < a := (lt_or_ge a b).imp id fun h => (eq_or_lt_of_le h).imp Eq.symm id
theorem lt_or_gt_of_ne {a b : Nat} (h : a ≠ b) : a < b ∨ a > b := (lt_trichotomy a b).imp id fun k => k.resolve_left h
theorem lt_of_not_le {a b : Nat} (h : ¬ a ≤ b) : b < a := (lt_or_ge b a).resolve_right h
theorem le_of_not_lt {a b : Nat} (h : ¬ a < b) : b ≤ a := (lt_or_ge a b).resolve_left h
theorem le_of_not_le {a b : Nat} (h : ¬ b ≤ a) : a ≤ b := Nat.le_of_lt (lt_of_not_le h)
@[simp] theorem not_le {a b : Nat} : ¬ a ≤ b ↔ b < a := ⟨lt_of_not_le, not_le_of_lt⟩
@[simp] theorem not_lt {a b : Nat} : ¬ a < b ↔ b ≤ a := ⟨le_of_not_lt, not_lt_of_le⟩
theorem le_of_eq {a b : Nat} (h : a = b) : a ≤ b := h ▸ .refl
@[simp] theorem succ_inj {a b : Nat} : succ a = succ b ↔ a = b := ⟨succ.inj, congrArg succ⟩
theorem succ_ne_self (n : Nat) : succ n ≠ n := ne_of_gt (lt_succ_self n)
@[simp] theorem add_one_inj {a b : Nat} : a + 1 = b + 1 ↔ a = b := succ_inj
theorem exists_eq_succ_of_ne_zero {n : Nat} (h : n ≠ 0) : ∃ k, n = succ k := by cases n with
  | zero => exact absurd rfl h
  | succ k => exact ⟨k, rfl⟩
theorem add_one (n : Nat) : n + 1 = succ n := rfl
theorem one_add (n : Nat) : 1 + n = succ n := Nat.add_comm 1 n
theorem add_left_cancel {n m k : Nat} (h : n + m = n + k) : m = k := by
  induction n with
  | zero => rw [Nat.zero_add, Nat.zero_add] at h; exact h
  | succ n ih => rw [succ_add, succ_add] at h; exact ih (succ.inj h)
theorem add_right_cancel {n m k : Nat} (h : n + m = k + m) : n = k := by
  rw [Nat.add_comm n, Nat.add_comm k] at h; exact Nat.add_left_cancel h
@[simp] theorem add_left_cancel_iff {n m k : Nat} : n + m = n + k ↔ m = k := ⟨Nat.add_left_cancel, fun h => h ▸ rfl⟩
@[simp] theorem add_right_cancel_iff {n m k : Nat} : m + n = k + n ↔ m = k := ⟨Nat.add_right_cancel, fun h => h ▸ rfl⟩
theorem add_right_comm (n m k : Nat) : n + m + k = n + k + m := by
  rw [Nat.add_assoc, Nat.add_comm m, ← Nat.add_assoc]
theorem eq_zero_of_add_eq_zero {n m : Nat} (h : n + m = 0) : n = 0 ∧ m = 0 := by cases m with
  | zero => exact ⟨h, rfl⟩
  | succ m => exact absurd h (succ_ne_zero _)
@[simp] theorem add_eq_zero_iff {n m : Nat} : n + m = 0 ↔ n = 0 ∧ m = 0 :=
  ⟨eq_zero_of_add_eq_zero, fun h => by rw [h.1, h.2]⟩
@[simp] theorem le_add_right (n k : Nat) : n ≤ n + k := by induction k with
  | zero => exact .refl
  | succ k ih => exact .step ih
@[simp] theorem le_add_left (n k : Nat) : n ≤ k + n := Nat.add_comm n k ▸ le_add_right n k
theorem le_of_add_right_le {n m k : Nat} (h : n + k ≤ m) : n ≤ m := Nat.le_trans (le_add_right n k) h
theorem exists_eq_add_of_le {n m : Nat} (h : n ≤ m) : ∃ k, m = n + k := by
  induction h with
  | refl => exact ⟨0, rfl⟩
  | step _ ih => exact ih.elim fun k e => ⟨k + 1, congrArg succ e⟩
theorem le.dest {n m : Nat} (h : n ≤ m) : ∃ k, n + k = m := (exists_eq_add_of_le h).elim fun k e => ⟨k, e.symm⟩
theorem le.intro {n m k : Nat} (h : n + k = m) : n ≤ m := h ▸ le_add_right n k
theorem add_le_add_left {n m : Nat} (h : n ≤ m) (k : Nat) : k + n ≤ k + m := by
  induction h with
  | refl => exact .refl
  | step _ ih => exact .step ih
theorem add_le_add_right {n m : Nat} (h : n ≤ m) (k : Nat) : n + k ≤ m + k := by
  rw [Nat.add_comm n, Nat.add_comm m]; exact Nat.add_le_add_left h k
theorem add_le_add {a b c d : Nat} (h : a ≤ b) (k : c ≤ d) : a + c ≤ b + d :=
  Nat.le_trans (Nat.add_le_add_right h c) (Nat.add_le_add_left k b)
theorem add_lt_add_left {n m : Nat} (h : n < m) (k : Nat) : k + n < k + m := Nat.add_le_add_left h k
theorem add_lt_add_right {n m : Nat} (h : n < m) (k : Nat) : n + k < m + k := by
  rw [Nat.add_comm n, Nat.add_comm m]; exact Nat.add_lt_add_left h k
theorem add_lt_add {a b c d : Nat} (h : a < b) (k : c < d) : a + c < b + d :=
  Nat.lt_trans (Nat.add_lt_add_right h c) (Nat.add_lt_add_left k b)
theorem le_of_add_le_add_left {k n m : Nat} (h : k + n ≤ k + m) : n ≤ m := by
  cases lt_or_ge m n with
  | inl l => exact absurd (Nat.lt_of_le_of_lt h (Nat.add_lt_add_left l k)) (lt_irrefl _)
  | inr l => exact l
theorem le_of_add_le_add_right {k n m : Nat} (h : n + k ≤ m + k) : n ≤ m := by
  rw [Nat.add_comm n, Nat.add_comm m] at h; exact Nat.le_of_add_le_add_left h
@[simp] theorem add_le_add_iff_left {k n m : Nat} : k + n ≤ k + m ↔ n ≤ m :=
  ⟨Nat.le_of_add_le_add_left, fun h => Nat.add_le_add_left h k⟩
@[simp] theorem add_le_add_iff_right {k n m : Nat} : n + k ≤ m + k ↔ n ≤ m :=
  ⟨Nat.le_of_add_le_add_right, fun h => Nat.add_le_add_right h k⟩
@[simp] theorem one_mul (n : Nat) : 1 * n = n := by induction n with
  | zero => rfl
  | succ n ih => exact congrArg succ ih
theorem succ_mul (n m : Nat) : succ n * m = n * m + m := by
  induction m with
  | zero => rfl
  | succ m ih =>
    show succ n * m + n + 1 = n * m + n + m + 1
    rw [ih, Nat.add_right_comm (n * m) n m]
theorem add_one_mul (n m : Nat) : (n + 1) * m = n * m + m := succ_mul n m
theorem mul_add_one (n m : Nat) : n * (m + 1) = n * m + n := rfl
protected theorem mul_comm (n m : Nat) : n * m = m * n := by
  induction m with
  | zero => exact (Nat.zero_mul n).symm
  | succ m ih => rw [succ_mul, ← ih]; rfl
protected theorem mul_add (a b c : Nat) : a * (b + c) = a * b + a * c := by
  induction c with
  | zero => rfl
  | succ c ih => show a * (b + c) + a = a * b + (a * c + a); rw [ih, Nat.add_assoc]
protected theorem left_distrib (a b c : Nat) : a * (b + c) = a * b + a * c := Nat.mul_add a b c
protected theorem add_mul (a b c : Nat) : (a + b) * c = a * c + b * c := by
  rw [Nat.mul_comm, Nat.mul_add, Nat.mul_comm c, Nat.mul_comm c]
protected theorem right_distrib (a b c : Nat) : (a + b) * c = a * c + b * c := Nat.add_mul a b c
protected theorem mul_assoc (a b c : Nat) : a * b * c = a * (b * c) := by
  induction c with
  | zero => rfl
  | succ c ih => show a * b * c + a * b = a * (b * c + b); rw [Nat.mul_add, ih]
protected theorem mul_left_comm (a b c : Nat) : a * (b * c) = b * (a * c) := by
  rw [← Nat.mul_assoc, Nat.mul_comm a, Nat.mul_assoc]
protected theorem two_mul (n : Nat) : 2 * n = n + n := by rw [show 2 = succ 1 from rfl, succ_mul, Nat.one_mul]
protected theorem mul_two (n : Nat) : n * 2 = n + n := by rw [Nat.mul_comm, Nat.two_mul]
theorem mul_le_mul_left {m n : Nat} (k : Nat) (h : m ≤ n) : k * m ≤ k * n :=
  (exists_eq_add_of_le h).elim fun c e => by rw [e, Nat.mul_add]; exact le_add_right _ _
theorem mul_le_mul_right {m n : Nat} (k : Nat) (h : m ≤ n) : m * k ≤ n * k := by
  rw [Nat.mul_comm m, Nat.mul_comm n]; exact Nat.mul_le_mul_left k h
theorem mul_le_mul {a b c d : Nat} (h : a ≤ b) (k : c ≤ d) : a * c ≤ b * d :=
  Nat.le_trans (Nat.mul_le_mul_right c h) (Nat.mul_le_mul_left b k)
theorem mul_pos {n m : Nat} (h : 0 < n) (k : 0 < m) : 0 < n * m := Nat.mul_le_mul h k
theorem mul_eq_zero {n m : Nat} : n * m = 0 ↔ n = 0 ∨ m = 0 := by
  constructor
  · intro h
    cases m with
    | zero => exact .inr rfl
    | succ m => exact .inl (eq_zero_of_add_eq_zero h).2
  · intro h
    cases h with
    | inl h => rw [h, Nat.zero_mul]
    | inr h => rw [h, Nat.mul_zero]
@[simp] theorem pow_zero (b : Nat) : b ^ 0 = 1 := rfl
theorem pow_succ {b n : Nat} : b ^ (n + 1) = b ^ n * b := rfl
@[simp] theorem pow_one (b : Nat) : b ^ 1 = b := Nat.one_mul b
theorem pow_two (b : Nat) : b ^ 2 = b * b := by show 1 * b * b = b * b; rw [Nat.one_mul]
@[simp] theorem one_pow (n : Nat) : 1 ^ n = 1 := by induction n with
  | zero => rfl
  | succ n ih => rw [pow_succ, ih]
theorem pow_add (a m n : Nat) : a ^ (m + n) = a ^ m * a ^ n := by
  induction n with
  | zero => exact (Nat.mul_one _).symm
  | succ n ih => show a ^ (m + n) * a = a ^ m * (a ^ n * a); rw [ih, Nat.mul_assoc]
@[simp] theorem sub_zero (n : Nat) : n - 0 = n := rfl
theorem sub_succ (n m : Nat) : n - succ m = pred (n - m) := rfl
@[simp] theorem pred_zero : pred 0 = 0 := rfl
@[simp] theorem pred_succ (n : Nat) : pred (succ n) = n := rfl
@[simp] theorem add_one_sub_one (n : Nat) : n + 1 - 1 = n := rfl
theorem succ_sub_one (n : Nat) : succ n - 1 = n := rfl
@[simp] theorem zero_sub (n : Nat) : 0 - n = 0 := by induction n with
  | zero => rfl
  | succ n ih => rw [sub_succ, ih]; rfl
theorem succ_sub_succ (n m : Nat) : succ n - succ m = n - m := by induction m with
  | zero => rfl
  | succ m ih => rw [sub_succ, ih]; rfl
@[simp] theorem add_sub_add_right (n k m : Nat) : (n + k) - (m + k) = n - m := by induction k with
  | zero => rfl
  | succ k ih => exact (succ_sub_succ _ _).trans ih
@[simp] protected theorem sub_self (n : Nat) : n - n = 0 := by induction n with
  | zero => rfl
  | succ n ih => rw [succ_sub_succ, ih]
@[simp] protected theorem add_sub_cancel (n m : Nat) : n + m - m = n := by
  have := Nat.add_sub_add_right n m 0
  rw [Nat.zero_add] at this; exact this
@[simp] protected theorem add_sub_cancel_left (n m : Nat) : n + m - n = m := by rw [Nat.add_comm, Nat.add_sub_cancel]
theorem sub_add_cancel {n m : Nat} (h : m ≤ n) : n - m + m = n :=
  (exists_eq_add_of_le h).elim fun k e => by rw [e, Nat.add_sub_cancel_left, Nat.add_comm]
theorem add_sub_of_le {n m : Nat} (h : n ≤ m) : n + (m - n) = m := by rw [Nat.add_comm, Nat.sub_add_cancel h]
theorem sub_le (n m : Nat) : n - m ≤ n := by induction m with
  | zero => exact .refl
  | succ m ih => exact Nat.le_trans (by rw [sub_succ]; cases n - m with | zero => exact .refl | succ k => exact le_succ k) ih
theorem sub_eq_zero_of_le {n m : Nat} (h : n ≤ m) : n - m = 0 :=
  (exists_eq_add_of_le h).elim fun k e => by
    have := Nat.add_sub_add_right 0 n k
    rw [Nat.zero_add, Nat.zero_sub, Nat.add_comm k] at this
    rw [e]; exact this
theorem sub_pos_of_lt {n m : Nat} (h : m < n) : 0 < n - m := pos_of_ne_zero fun e => by
  have := Nat.sub_add_cancel (Nat.le_of_lt h)
  rw [e, Nat.zero_add] at this
  exact ne_of_lt h this
theorem sub_sub (n m k : Nat) : n - m - k = n - (m + k) := by induction k with
  | zero => rfl
  | succ k ih => rw [Nat.sub_succ, ih]; rfl
theorem strongRecOn' {p : Nat → Prop} (n : Nat) (h : ∀ n, (∀ m, m < n → p m) → p n) : p n := by
  have all : ∀ k m, m < k → p m := by
    intro k
    induction k with
    | zero => intro m l; exact absurd l (not_lt_zero m)
    | succ k ih => intro m l; exact h m fun j jm => ih j (Nat.lt_of_lt_of_le jm (le_of_lt_succ l))
  exact all (n + 1) n (lt_succ_self n)
protected theorem strong_induction_on {p : Nat → Prop} (n : Nat) (h : ∀ n, (∀ m, m < n → p m) → p n) : p n := strongRecOn' n h
protected theorem strongRecOn {p : Nat → Prop} (n : Nat) (h : ∀ n, (∀ m, m < n → p m) → p n) : p n := strongRecOn' n h
protected theorem dvd_refl (a : Nat) : a ∣ a := ⟨1, (Nat.mul_one a).symm⟩
protected theorem dvd_zero (a : Nat) : a ∣ 0 := ⟨0, rfl⟩
protected theorem one_dvd (n : Nat) : 1 ∣ n := ⟨n, (Nat.one_mul n).symm⟩
protected theorem dvd_mul_right (a b : Nat) : a ∣ a * b := ⟨b, rfl⟩
protected theorem dvd_mul_left (a b : Nat) : a ∣ b * a := ⟨b, Nat.mul_comm b a⟩
protected theorem dvd_trans {a b c : Nat} (h : a ∣ b) (k : b ∣ c) : a ∣ c :=
  h.elim fun x e => k.elim fun y f => ⟨x * y, by rw [f, e, Nat.mul_assoc]⟩
protected theorem dvd_add {a b c : Nat} (h : a ∣ b) (k : a ∣ c) : a ∣ b + c :=
  h.elim fun x e => k.elim fun y f => ⟨x + y, by rw [f, e, Nat.mul_add]⟩
theorem max_def (a b : Nat) : max a b = if a ≤ b then b else a := rfl
theorem min_def (a b : Nat) : min a b = if a ≤ b then a else b := rfl
end Nat
theorem Nat.lt.base (n : Nat) : n < n + 1 := .refl
theorem Nat.lt.step {n m : Nat} (h : n < m) : n < m + 1 := Nat.le.step h
instance : Trans (@LE.le Nat _) (@LE.le Nat _) (@LE.le Nat _) := ⟨Nat.le_trans⟩
instance : Trans (@LT.lt Nat _) (@LT.lt Nat _) (@LT.lt Nat _) := ⟨Nat.lt_trans⟩
instance : Trans (@LT.lt Nat _) (@LE.le Nat _) (@LT.lt Nat _) := ⟨Nat.lt_of_lt_of_le⟩
instance : Trans (@LE.le Nat _) (@LT.lt Nat _) (@LT.lt Nat _) := ⟨Nat.lt_of_le_of_lt⟩
@[simp] theorem ge_iff_le {α : Type u} [LE α] {a b : α} : a ≥ b ↔ b ≤ a := Iff.rfl
@[simp] theorem gt_iff_lt {α : Type u} [LT α] {a b : α} : a > b ↔ b < a := Iff.rfl
attribute [refl] Nat.le_refl

/-! ## 14. Options, pairs, sums and lists -/
inductive Option (α : Type u) where
  | none : Option α
  | some (val : α) : Option α
export Option (none some)
inductive Sum (α : Type u) (β : Type v) where
  | inl (val : α) : Sum α β
  | inr (val : β) : Sum α β
attribute [unbox] Prod
@[simp] theorem Prod.eta {α : Type u} {β : Type v} (p : Prod α β) : Prod.mk p.1 p.2 = p := rfl
@[ext] theorem Prod.ext {α : Type u} {β : Type v} {p q : Prod α β} (h₁ : p.1 = q.1) (h₂ : p.2 = q.2) : p = q := by
  cases p; cases q; cases h₁; cases h₂; rfl
@[ext] theorem Subtype.ext {α : Sort u} {p : α → Prop} {a b : Subtype p} (h : a.val = b.val) : a = b := by
  cases a; cases b; cases h; rfl
@[simp] theorem Option.some_inj {α : Type u} {a b : α} : some a = some b ↔ a = b := ⟨fun h => by injection h, fun h => h ▸ rfl⟩
def Option.map {α : Type u} {β : Type v} (f : α → β) : Option α → Option β
  | some a => some (f a)
  | none => none
def Option.getD {α : Type u} : Option α → α → α
  | some a, _ => a
  | none, d => d
def Option.isSome {α : Type u} : Option α → Bool
  | some _ => true
  | none => false
def Option.isNone {α : Type u} : Option α → Bool
  | some _ => false
  | none => true
@[simp] theorem Option.map_none {α : Type u} {β : Type v} (f : α → β) : Option.map f none = none := rfl
@[simp] theorem Option.map_some {α : Type u} {β : Type v} (f : α → β) (a : α) : Option.map f (some a) = some (f a) := rfl
@[simp] theorem id_eq {α : Sort u} (a : α) : id a = a := rfl
@[simp] theorem Function.comp_apply {α : Sort u} {β : Sort v} {δ : Sort w} {f : β → δ} {g : α → β} {x : α} :
    Function.comp f g x = f (g x) := rfl
namespace List
variable {α : Type u} {β : Type v} {γ : Type w}
protected def append : List α → List α → List α
  | nil, bs => bs
  | a :: as, bs => a :: List.append as bs
instance instAppend : Append (List α) := ⟨List.append⟩
def length : List α → Nat
  | nil => 0
  | _ :: as => as.length + 1
def map (f : α → β) : List α → List β
  | nil => nil
  | a :: as => f a :: map f as
def filter (p : α → Bool) : List α → List α
  | nil => nil
  | a :: as => match p a with
    | true => a :: filter p as
    | false => filter p as
def foldr (f : α → β → β) (init : β) : List α → β
  | nil => init
  | a :: as => f a (foldr f init as)
def foldl (f : β → α → β) : β → List α → β
  | b, nil => b
  | b, a :: as => foldl f (f b a) as
def reverseAux : List α → List α → List α
  | nil, r => r
  | a :: l, r => reverseAux l (a :: r)
def reverse (as : List α) : List α := reverseAux as nil
def replicate : Nat → α → List α
  | 0, _ => nil
  | n + 1, a => a :: replicate n a
def head? : List α → Option α
  | nil => none
  | a :: _ => some a
def tail : List α → List α
  | nil => nil
  | _ :: as => as
def isEmpty : List α → Bool
  | nil => true
  | _ :: _ => false
def take : Nat → List α → List α
  | 0, _ => nil
  | _ + 1, nil => nil
  | n + 1, a :: as => a :: take n as
def drop : Nat → List α → List α
  | 0, as => as
  | _ + 1, nil => nil
  | n + 1, _ :: as => drop n as
def sum [Add α] [OfNat α 0] : List α → α := foldr (fun a b => a + b) 0
inductive Mem (a : α) : List α → Prop
  | head (as : List α) : Mem a (a :: as)
  | tail (b : α) {as : List α} : Mem a as → Mem a (b :: as)
instance : Inhabited (List α) := ⟨nil⟩
@[simp] theorem nil_append (as : List α) : nil ++ as = as := rfl
@[simp] theorem cons_append (a : α) (as bs : List α) : (a :: as) ++ bs = a :: (as ++ bs) := rfl
@[simp] theorem append_nil (as : List α) : as ++ nil = as := by induction as with
  | nil => rfl
  | cons a as ih => rw [cons_append, ih]
@[simp] theorem append_assoc (as bs cs : List α) : (as ++ bs) ++ cs = as ++ (bs ++ cs) := by induction as with
  | nil => rfl
  | cons a as ih => rw [cons_append, cons_append, cons_append, ih]
theorem append_cons (as : List α) (b : α) (bs : List α) : as ++ b :: bs = as ++ [b] ++ bs := by simp
@[simp] theorem length_nil : length (nil : List α) = 0 := rfl
@[simp] theorem length_cons {a : α} {as : List α} : length (a :: as) = as.length + 1 := rfl
@[simp] theorem length_append {as bs : List α} : (as ++ bs).length = as.length + bs.length := by induction as with
  | nil => exact (Nat.zero_add _).symm
  | cons a as ih => rw [cons_append, length_cons, ih, length_cons, Nat.add_right_comm]
@[simp] theorem map_nil {f : α → β} : map f nil = nil := rfl
@[simp] theorem map_cons {f : α → β} {a : α} {as : List α} : map f (a :: as) = f a :: map f as := rfl
@[simp] theorem map_append {f : α → β} {as bs : List α} : map f (as ++ bs) = map f as ++ map f bs := by induction as with
  | nil => rfl
  | cons a as ih => rw [cons_append, map_cons, ih]; rfl
@[simp] theorem map_map {g : β → γ} {f : α → β} {l : List α} : map g (map f l) = map (g ∘ f) l := by induction l with
  | nil => rfl
  | cons a as ih => rw [map_cons, map_cons, ih]; rfl
@[simp] theorem map_id {l : List α} : map id l = l := by induction l with
  | nil => rfl
  | cons a as ih => rw [map_cons, ih]; rfl
@[simp] theorem length_map {as : List α} (f : α → β) : (map f as).length = as.length := by induction as with
  | nil => rfl
  | cons a as ih => rw [map_cons, length_cons, ih]; rfl
@[simp] theorem filter_nil {p : α → Bool} : filter p nil = nil := rfl
@[simp] theorem foldr_nil {f : α → β → β} {b : β} : foldr f b nil = b := rfl
@[simp] theorem foldr_cons {f : α → β → β} {b : β} {a : α} {l : List α} : foldr f b (a :: l) = f a (foldr f b l) := rfl
@[simp] theorem foldl_nil {f : β → α → β} {b : β} : foldl f b nil = b := rfl
@[simp] theorem foldl_cons {f : β → α → β} {b : β} {a : α} {l : List α} : foldl f b (a :: l) = foldl f (f b a) l := rfl
theorem reverseAux_eq (as bs : List α) : reverseAux as bs = reverse as ++ bs := by
  have aux : ∀ (as bs cs : List α), reverseAux as (bs ++ cs) = reverseAux as bs ++ cs := by
    intro as
    induction as with
    | nil => intro bs cs; rfl
    | cons a as ih => intro bs cs; exact ih (a :: bs) cs
  exact aux as nil bs
@[simp] theorem reverse_nil : reverse (nil : List α) = nil := rfl
@[simp] theorem reverse_cons {a : α} {as : List α} : reverse (a :: as) = reverse as ++ [a] := reverseAux_eq as [a]
@[simp] theorem reverse_append {as bs : List α} : reverse (as ++ bs) = reverse bs ++ reverse as := by induction as with
  | nil => simp
  | cons a as ih => simp [ih]
@[simp] theorem reverse_reverse (as : List α) : reverse (reverse as) = as := by induction as with
  | nil => rfl
  | cons a as ih => simp [ih]
@[simp] theorem length_reverse {as : List α} : (reverse as).length = as.length := by induction as with
  | nil => rfl
  | cons a as ih => simp [ih]
@[simp] theorem cons_ne_nil (a : α) (l : List α) : a :: l ≠ nil := nofun
@[simp] theorem length_eq_zero_iff {l : List α} : l.length = 0 ↔ l = nil := by cases l with
  | nil => simp
  | cons a l => simp
end List
instance instDecidableEqList {α : Type u} [DecidableEq α] : DecidableEq (List α)
  | .nil, .nil => .isTrue rfl
  | .nil, .cons _ _ => .isFalse nofun
  | .cons _ _, .nil => .isFalse nofun
  | .cons a as, .cons b bs =>
    match decEq a b, instDecidableEqList as bs with
    | .isTrue h, .isTrue k => .isTrue (h ▸ k ▸ rfl)
    | .isFalse h, _ => .isFalse fun e => by injection e with e _; exact h e
    | _, .isFalse k => .isFalse fun e => by injection e with _ e; exact k e
instance instDecidableEqProd {α : Type u} {β : Type v} [DecidableEq α] [DecidableEq β] : DecidableEq (Prod α β)
  | (a, b), (c, d) =>
    match decEq a c, decEq b d with
    | .isTrue h, .isTrue k => .isTrue (h ▸ k ▸ rfl)
    | .isFalse h, _ => .isFalse fun e => by injection e with e _; exact h e
    | _, .isFalse k => .isFalse fun e => by injection e with _ e; exact k e
